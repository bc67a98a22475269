// Package api is how commands speak to the agent: HTTP and JSON over a unix
// socket, under /v1, and a client for it.
//
// The socket's file is mode 0600, and the kernel is asked who connects
// (SO_PEERCRED): the file's mode is not the only guard. Errors arrive with
// core's sentinels, field paths and objects intact, so that a command behaves
// the same with an agent and without.
package api
