// Package kvm finds the VMs of a host that libvirt's QEMU driver runs.
//
// Goals, in this order:
//
//  1. What a VM's NIC is plugged into comes from the kernel where the kernel
//     knows, else from libvirt: packets follow the kernel.
//  2. A libvirtd that restarts, hangs or is gone loses nothing: Watch connects
//     again and says Resync; List fails and thereby removes nothing.
//  3. One bad domain spoils no other. What cannot be read closes that NIC, is
//     logged and shown by Preflight.
//  4. Parsing needs no libvirt: the libvirt hook (package hook) uses it where a
//     call to libvirt would dead-lock.
//
// Where what is: domain.go domain XML to a VM; metadata.go what an operator
// says in <metadata>; links.go what the kernel says; settings.go the settings
// and libvirt's sockets; conn.go the little of libvirt that is used, rpc.go its
// implementation, fake.go another; adapter.go List, watch.go Watch,
// preflight.go the checks of doctor.
//
// What a reviewer should ask: can an event be lost without a Resync? Can a
// guest, or metadata that nobody validated, open another NIC?
package kvm
