// Package ocftester holds the built agents against the contract from outside, as a cluster, a
// person and an attacker meet them: what they print, what they answer, what they leave behind.
//
// Untagged are the black-box tests over every agent. The build tag real adds the real ocf-tester of
// resource-agents and the tools that show an agent's meta-data to people (crm, pcs, crm_resource);
// those install the Debian packages they need when they run as root.
package ocftester
