// Package xenserver is the adapter for XenServer and XCP-ng: it finds the VMs
// of a host, or of a whole pool, through XAPI.
//
// Driver is what a registry wants. New puts an adapter together by hand. Site
// is the pool's objects as the adapter keeps them: records in, core.Instances
// out, no I/O. Metadata is what an operator says in other_config.
//
// The vmops folder below holds the remote backend, which shares the client in
// the xapi folder.
package xenserver
