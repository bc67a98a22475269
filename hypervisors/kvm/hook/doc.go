// Package hook is what libvirt runs before a guest does: its qemu hook, which
// has a domain's policy put in force while the taps exist and QEMU waits, and
// the installer of that hook.
//
// libvirt holds the domain's lock while the hook runs. Nothing here, and nothing
// that the agent does to answer, may call libvirt: it would wait for itself. All
// that is known comes from the XML on standard input and from the kernel.
//
// A failure is never a hole: a tap without a policy is a closed port. So by
// default the VM starts, closed, and the agent opens it when it can.
package hook
