// Package state keeps the desired state of one agent, or of one standalone
// command, in a bbolt file: groups, VMs, and small values that sources keep
// for themselves. What only a running host can know (devices, domain ids,
// enforcement points) is never kept.
//
// A Store holds its file's lock from Open to Close, so that one process at a
// time has the say. Reads are of immutable Snapshots in memory. Changes are
// staged in a Tx, in memory too, and reach the file in one bbolt transaction:
// after a crash the file holds the change whole or not at all.
//
// Every record carries a checksum. A damaged file is refused whole: desired
// state that lost a record would close a port or, worse, forget a denial.
package state
