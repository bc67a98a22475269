// Package nl speaks netlink: requests, pipelined requests, dumps, and a feed
// that follows a kind of kernel object through its multicast events.
//
// It exists beside the netlink libraries because a batch needs to know which
// of its messages was refused, every wait must end with its context, and a
// feed must come back by itself after the kernel has dropped events.
package nl
