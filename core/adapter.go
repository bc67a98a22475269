package core

import "context"

// AdapterDriver makes adapters.
type AdapterDriver interface {
	Info() Info
	Open(ctx context.Context, s Settings) (HypervisorAdapter, error)
}

// HypervisorAdapter finds the VMs of a hypervisor. It is the authority on
// which VMs are here and where their NICs are plugged in, and a source of
// their kind, addresses, pairs and groups.
type HypervisorAdapter interface {
	Info() Info
	Preflight(ctx context.Context) ([]Check, error)
	// List is every running or paused VM. An error removes nothing anywhere.
	List(ctx context.Context) ([]Instance, error)
	// Watch reports changes until ctx ends, then closes the channel. The first
	// event is a Resync; more follow whenever events may have been lost (the
	// hypervisor's daemon restarted): List then.
	Watch(ctx context.Context) (<-chan VMEvent, error)
	Close() error
}

// Instance is a VM as a hypervisor has it.
type Instance struct {
	VM VM
	// Claims says what VM's fields mean: when set, the hypervisor's metadata
	// speaks for the VM's groups; when not, only key, name, MACs and bindings
	// are known here.
	Claims bool
	// DomainID is the hypervisor's id of this run of the VM, another at every
	// start (libvirt's and XAPI's domain id). Empty = not known.
	DomainID string
}

// VMEventKind is what happened.
type VMEventKind uint8

const (
	VMResync VMEventKind = iota + 1
	VMStarted
	VMStopped
	VMChanged // a NIC came or went, a device or a domain id changed, it migrated
)

func (k VMEventKind) String() string {
	return [...]string{"", "resync", "started", "stopped", "changed"}[k]
}

// VMEvent is one change. Instance is complete for started and changed; for
// stopped only its key and name count.
type VMEvent struct {
	Kind     VMEventKind
	Instance Instance
}
