// Package vmops is a backend that programs a XenServer host from afar, through
// the vmops plugin that CloudStack leaves in dom0 (host.call_plugin). Nothing of
// ours runs there. It is for hosts whose dom0 is too old for an agent, or where
// nothing may be installed, and for pools that CloudStack does not drive.
//
// The plugin was written for one server and one kind of policy. What it cannot
// enforce is not among the features, what it gets wrong is never asked of it
// (rules.go says what, by the fault), and names that it would read as something
// else are refused (names.go). What was programmed is kept in other_config, of
// the host and of the VMs (store.go): the plugin itself forgets.
package vmops
