// Package metadata says what a resource agent is: its parameters and actions as plain data,
// and the OCF meta-data XML written from that data.
//
// It is the ground floor of the project: it imports nothing of it. The one declaration drives
// the reading of the environment, the validation, the usage text (all in package ocf) and the
// XML, so that these cannot disagree. The generated files beside the code (*.xml) are written
// by `make metadata`; a test fails when they are stale.
package metadata
