// Package xapi is a client of the XenServer and XCP-ng management API, as far
// as security groups need it: JSON-RPC over HTTPS to a pool, or over dom0's own
// unix socket.
//
// A session that has expired is opened anew, a login at a host that is not the
// pool's master goes on to the master, and neither is seen by callers. The
// certificate is pinned by its SHA-256, or verified; there is no third way.
package xapi
