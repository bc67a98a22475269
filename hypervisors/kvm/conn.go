package kvm

import (
	"context"
	"fmt"
)

// Connector connects to a libvirt daemon. Fake is one.
type Connector interface {
	// Connect fails with ErrNotReady while no daemon listens.
	Connect(ctx context.Context) (Conn, error)
}

// Conn is one connection to libvirt, and all that is asked of it. A call that
// its context ends takes the connection with it: libvirt cannot be told to stop
// working on something.
type Conn interface {
	// Domains are those that run or are paused.
	Domains(ctx context.Context) ([]DomainRef, error)
	// DomainXML describes a domain as it is now; ErrNotFound when there is no
	// such domain any more.
	DomainXML(ctx context.Context, d DomainRef) (string, error)
	// NetworkBridge is the bridge of a libvirt network.
	NetworkBridge(ctx context.Context, name string) (string, error)
	// Version is the daemon's.
	Version(ctx context.Context) (Version, error)
	// Events names domains that something happened to: started, stopped, a
	// device or metadata changed. The channel closes when ctx or the connection
	// ends.
	Events(ctx context.Context) (<-chan DomainRef, error)
	Close() error
}

// DomainRef names a domain.
type DomainRef struct {
	UUID string
	Name string
}

// Version of libvirt, as it numbers itself: 1,000,000 major + 1,000 minor + micro.
type Version uint64

func (v Version) String() string {
	return fmt.Sprintf("%d.%d.%d", v/1_000_000, v/1_000%1_000, v%1_000)
}
