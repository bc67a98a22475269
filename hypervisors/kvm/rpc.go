package kvm

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/ringwall/ringwall/core"
)

// Dialer connects to a libvirt daemon over a unix socket.
type Dialer struct {
	Sockets []string      // tried in order
	Timeout time.Duration // for each call; zero: 30 s
}

// Connect implements Connector.
func (d Dialer) Connect(ctx context.Context) (Conn, error) {
	timeout := d.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var dialer net.Dialer
	var errs []error
	for _, s := range d.Sockets {
		nc, err := dialer.DialContext(ctx, "unix", s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c := &rpcConn{sock: nc, timeout: timeout}
		c.rpc = libvirt.NewWithDialer(dialled{nc})
		_, err = call(ctx, c, "connect", func() (struct{}, error) {
			return struct{}{}, c.rpc.ConnectToURI(libvirt.QEMUSystem)
		})
		if err == nil {
			return c, nil
		}
		c.Close()
		errs = append(errs, fmt.Errorf("%s: %w", s, err))
	}
	return nil, fmt.Errorf("no libvirt daemon on %s (systemctl start libvirtd, or virtqemud): %w: %w",
		strings.Join(d.Sockets, ", "), errors.Join(errs...), core.ErrNotReady)
}

// dialled hands a connection to go-libvirt. Keeping hold of it is what makes a
// call that hangs end.
type dialled struct{ conn net.Conn }

func (d dialled) Dial() (net.Conn, error) { return d.conn, nil }

type rpcConn struct {
	rpc     *libvirt.Libvirt
	sock    net.Conn
	timeout time.Duration
}

// call runs one remote call. go-libvirt knows no contexts and waits for ever for
// a daemon that hangs; it returns at once when its socket closes.
func call[T any](ctx context.Context, c *rpcConn, what string, f func() (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer in %s", c.timeout))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.sock.Close() })
	v, err := f()
	if !stop() && err != nil {
		return v, fmt.Errorf("libvirt: %s: %w: %w", what, context.Cause(ctx), core.ErrNotReady)
	}
	if err != nil {
		return v, fmt.Errorf("libvirt: %s: %w", what, sentinel(err))
	}
	return v, nil
}

// sentinel adds core's word to libvirt's.
func sentinel(err error) error {
	var e libvirt.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%w: %w", err, core.ErrNotReady) // the connection broke
	}
	switch libvirt.ErrorNumber(e.Code) {
	case libvirt.ErrNoDomain, libvirt.ErrNoNetwork:
		return fmt.Errorf("%w: %w", err, core.ErrNotFound)
	}
	return err
}

func (c *rpcConn) Domains(ctx context.Context) ([]DomainRef, error) {
	return call(ctx, c, "list domains", func() ([]DomainRef, error) {
		doms, _, err := c.rpc.ConnectListAllDomains(1, libvirt.ConnectListDomainsActive)
		out := make([]DomainRef, len(doms))
		for i, d := range doms {
			out[i] = refOf(d)
		}
		return out, err
	})
}

func (c *rpcConn) DomainXML(ctx context.Context, d DomainRef) (string, error) {
	u, err := parseUUID(d.UUID)
	if err != nil {
		return "", err
	}
	return call(ctx, c, "describe domain "+d.Name, func() (string, error) {
		return c.rpc.DomainGetXMLDesc(libvirt.Domain{Name: d.Name, UUID: u}, 0)
	})
}

func (c *rpcConn) NetworkBridge(ctx context.Context, name string) (string, error) {
	return call(ctx, c, "look up network "+name, func() (string, error) {
		n, err := c.rpc.NetworkLookupByName(name)
		if err != nil {
			return "", err
		}
		return c.rpc.NetworkGetBridgeName(n)
	})
}

func (c *rpcConn) Version(ctx context.Context) (Version, error) {
	return call(ctx, c, "ask for its version", func() (Version, error) {
		v, err := c.rpc.ConnectGetLibVersion()
		return Version(v), err
	})
}

// watched are the events after which a domain must be looked at again.
// Metadata changes are told from libvirt 3.0 on. There is none for a NIC that is
// moved to another bridge (virsh update-device): a backend sees its port move.
var watched = []libvirt.DomainEventID{
	libvirt.DomainEventIDLifecycle,
	libvirt.DomainEventIDDeviceAdded,
	libvirt.DomainEventIDDeviceRemoved,
	libvirt.DomainEventIDMetadataChange,
}

func (c *rpcConn) Events(ctx context.Context) (<-chan DomainRef, error) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan DomainRef)
	var wg sync.WaitGroup
	for _, id := range watched {
		in, err := call(ctx, c, "subscribe to events", func() (<-chan any, error) {
			return c.rpc.SubscribeEvents(ctx, id, nil)
		})
		if err != nil {
			cancel()
			return nil, err
		}
		wg.Go(func() {
			for ev := range in { // to the end: go-libvirt blocks on an event nobody takes
				ref, ok := domainOf(ev)
				if !ok {
					continue
				}
				select {
				case out <- ref:
				case <-ctx.Done():
				}
			}
		})
	}
	go func() {
		wg.Wait()
		cancel()
		close(out)
	}()
	return out, nil
}

func domainOf(event any) (DomainRef, bool) {
	switch e := event.(type) {
	case *libvirt.DomainEventCallbackLifecycleMsg:
		return refOf(e.Msg.Dom), true
	case *libvirt.DomainEventCallbackDeviceAddedMsg:
		return refOf(e.Dom), true
	case *libvirt.DomainEventCallbackDeviceRemovedMsg:
		return refOf(e.Msg.Dom), true
	case *libvirt.DomainEventCallbackMetadataChangeMsg:
		return refOf(e.Dom), true
	}
	return DomainRef{}, false
}

func (c *rpcConn) Close() error { return c.sock.Close() }

func refOf(d libvirt.Domain) DomainRef { return DomainRef{UUID: formatUUID(d.UUID), Name: d.Name} }

// formatUUID writes it as libvirt does.
func formatUUID(u libvirt.UUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func parseUUID(s string) (u libvirt.UUID, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(u) {
		return u, fmt.Errorf("%q is not a UUID: %w", s, core.ErrInvalid)
	}
	return libvirt.UUID(b), nil
}
