// Package dom0 holds the packet tests of a XenServer host: the agent and the
// vmops plugin in a dom0 out of network namespaces, below a simulated XAPI.
package dom0
