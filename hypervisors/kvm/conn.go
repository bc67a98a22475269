package kvm

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
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

// ParseVersion reads 9.0.0 or 9.0.
func ParseVersion(s string) (Version, error) {
	fault := fmt.Errorf("%q is not a version of libvirt; use a form like 9.0.0: %w", s, core.ErrInvalid)
	parts := strings.Split(s, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, fault
	}
	var v uint64
	for i := range 3 {
		var n uint64
		if i < len(parts) {
			var err error
			if n, err = strconv.ParseUint(parts[i], 10, 64); err != nil || n > 999 {
				return 0, fault
			}
		}
		v = v*1_000 + n
	}
	return Version(v), nil
}
