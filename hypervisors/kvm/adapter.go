package kvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ringwall/ringwall/core"
)

// Driver makes KVM adapters. The checks are asked after the adapter's own.
func Driver(checks ...func() core.Check) core.AdapterDriver { return driver{checks} }

type driver struct{ checks []func() core.Check }

func (driver) Info() core.Info {
	return core.Info{Name: Name, Version: "1", Settings: settingInfos}
}

// Open looks at the network namespace of the calling thread. libvirt need not
// run yet.
func (d driver) Open(_ context.Context, s core.Settings) (core.HypervisorAdapter, error) {
	parsed, err := parseSettings(s)
	if err != nil {
		return nil, err
	}
	links, err := OpenLinks()
	if err != nil {
		return nil, err
	}
	return New(Options{
		Libvirt: Dialer{Sockets: parsed.sockets, Timeout: parsed.timeout},
		Links:   links,
		Parse:   ParseOptions{CloudStackNames: parsed.cloudstackNames},
		Checks:  d.checks,
	}), nil
}

// SystemVMsByName says whether settings have system VMs known by their names,
// as the hook must know them, too.
func SystemVMsByName(s core.Settings) (bool, error) {
	parsed, err := parseSettings(s)
	return parsed.cloudstackNames, err
}

// LibvirtVersion asks the daemon that an adapter with these settings would use.
func LibvirtVersion(ctx context.Context, s core.Settings) (Version, error) {
	parsed, err := parseSettings(s)
	if err != nil {
		return 0, err
	}
	return New(Options{Libvirt: Dialer{Sockets: parsed.sockets, Timeout: parsed.timeout}}).LibvirtVersion(ctx)
}

// Options of an adapter that is put together by hand.
type Options struct {
	Libvirt Connector
	Links   Links // closed with the adapter
	Parse   ParseOptions
	Log     *slog.Logger // nil: slog.Default()
	// Backoff is the first pause before Watch connects again; it doubles up to
	// fifty times as much. Zero: 100 ms.
	Backoff time.Duration
	// Keepalive is how often Watch asks whether the daemon is still there. A
	// daemon that hangs keeps its sockets open. Zero: 15 s.
	Keepalive time.Duration
	// Proc is where /proc is; empty: /proc.
	Proc string
	// Checks are asked after the adapter's own.
	Checks []func() core.Check
}

// Adapter is a core.HypervisorAdapter.
type Adapter struct {
	o   Options
	log *slog.Logger
}

// New puts an adapter together.
func New(o Options) *Adapter {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Backoff == 0 {
		o.Backoff = 100 * time.Millisecond
	}
	if o.Keepalive == 0 {
		o.Keepalive = 15 * time.Second
	}
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	return &Adapter{o: o, log: o.Log.With("adapter", Name)}
}

// Info implements core.HypervisorAdapter.
func (a *Adapter) Info() core.Info { return driver{}.Info() }

// Close lets go of handles. Watches end with their contexts.
func (a *Adapter) Close() error { return a.o.Links.Close() }

// List implements core.HypervisorAdapter. It has a connection of its own, so
// that a List that is given up harms no Watch.
func (a *Adapter) List(ctx context.Context) ([]core.Instance, error) {
	domains, err := a.domains(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]core.Instance, len(domains))
	for i, d := range domains {
		a.report(d)
		out[i] = d.Instance()
	}
	return out, nil
}

// domains reads all that run.
func (a *Adapter) domains(ctx context.Context) ([]Domain, error) {
	conn, err := a.o.Libvirt.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	refs, err := conn.Domains(ctx)
	if err != nil {
		return nil, err
	}
	var out []Domain
	for _, ref := range refs {
		d, err := a.read(ctx, conn, ref)
		switch {
		case errors.Is(err, core.ErrNotFound): // ended meanwhile
		case err != nil:
			return nil, err
		case d.Active:
			out = append(out, d)
		}
	}
	return out, nil
}

// read asks for one domain. XML that cannot be read gives a domain without NICs,
// so that it neither hides the others nor vanishes itself: its ports are closed.
func (a *Adapter) read(ctx context.Context, conn Conn, ref DomainRef) (Domain, error) {
	text, err := conn.DomainXML(ctx, ref)
	if err != nil {
		return Domain{}, err
	}
	d, err := ParseDomain(text, a.o.Parse)
	if err != nil {
		return Domain{UUID: ref.UUID, Name: ref.Name, Active: true, Problems: []error{err}}, nil
	}
	d.Locate(a.o.Links, func(name string) (string, error) { return conn.NetworkBridge(ctx, name) })
	return d, nil
}

func (a *Adapter) report(d Domain) {
	for _, p := range d.Problems {
		a.log.Warn("a part of a domain cannot be used; what it concerns stays closed", "domain", d.Name, "uuid", d.UUID, "error", p)
	}
}

// LibvirtVersion asks the daemon, for those who must know what it can do.
func (a *Adapter) LibvirtVersion(ctx context.Context) (Version, error) {
	conn, err := a.o.Libvirt.Connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	v, err := conn.Version(ctx)
	if err != nil {
		return 0, fmt.Errorf("version of libvirt: %w", err)
	}
	return v, nil
}
