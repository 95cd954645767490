// Package ocf is the contract between an agent and whoever calls it: Pacemaker, heartbeat,
// drbd-reactor, ocf-tester or a person at a shell.
//
// It knows the exit codes, the environment (OCF_RESKEY_*, OCF_RESKEY_CRM_meta_*, OCF_CHECK_LEVEL,
// HA_*), the parameters typed by the declaration in package metadata, the notifications of a
// clone, the deadline of an action, the log, and the haresources form. An agent gives it a
// Program; Run turns one call into one exit code and, on failure, one ocf-exit-reason line.
//
// No other package reads the environment or knows the number of an exit code. It touches only
// the environment, the standard streams, the log, and in heartbeat's form the file of defaults
// in /etc/ha.d.
//
// Sources: the OCF resource agent API 1.1 (ra/1.1/resource-agent-api.md of the
// ClusterLabs OCF-spec), Pacemaker Explained (the agents chapter), and what Pacemaker 2.1.5 and
// heartbeat 3.0.6 were seen to pass.
package ocf
