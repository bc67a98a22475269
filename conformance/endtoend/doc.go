// Package endtoend runs the programs as a user does: ringwalld as a process on a
// host with VMs, its driver and adapter in process or as plugins, commands of
// ringwall beside it, and packets.
package endtoend
