// Package enforcement shows, with the traffic of real guests, that a host whose
// VMs are libvirt's enforces what it should: with the agent's program, the kvm
// adapter as a plugin, and libvirt's hook, as they are installed.
package enforcement
