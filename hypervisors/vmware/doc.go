// Package vmware finds the VMs on a vSphere Distributed Switch and keeps them
// apart with private VLANs: all that vSphere enforces without an agent on its
// hosts. It speaks to vCenter, so one agent, on any Linux machine, serves a
// whole switch.
//
// Goals, in this order:
//
//  1. What private VLANs cannot express is refused by name before anything is
//     written, and the NIC that it concerns is closed or stays as it was.
//  2. The switch is the record. Which port groups and private VLANs are ours,
//     and for which group, is written on our own port groups, in the very call
//     that makes them; where a NIC came from is written on its VM, in the very
//     call that moves it. A crash anywhere leaves nothing that the next Sync
//     does not recognise.
//  3. NICs move one after another in an order that never lets two VMs meet whom
//     neither the old nor the new policy lets meet.
//  4. After writing, the switch is read back.
//
// Where what is: segment.go which part of a policy is a place in a private
// VLAN; mark.go what is written on our port groups; state.go reading the
// switch, portgroup.go its port groups; plan.go what has to change, order.go
// in which order NICs move, text.go what people see of it; write.go carrying
// it out; backend.go Sync, Apply, Observe, Teardown. adapter.go List, watch.go
// Watch, metadata.go what VMs say of themselves. settings.go the settings,
// connection.go the session with vCenter, faults.go its errors, preflight.go
// the checks of doctor.
//
// What a reviewer should ask: can a NIC be open to a VM in the middle of a
// Sync that neither ruleset opens it to? Can anything be removed that is not
// ours? Can the password get into a log or an error?
package vmware
