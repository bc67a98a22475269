package xenserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// Driver makes XenServer adapters.
func Driver() core.AdapterDriver { return driver{} }

type driver struct{}

func (driver) Info() core.Info {
	return core.Info{Name: Name, Version: "1", Settings: append(ConnectionSettings(),
		core.SettingInfo{Name: "host", Type: "string", Help: "the host whose VMs are listed, by name or UUID; none = this host in dom0, the whole pool over hosts"},
		core.SettingInfo{Name: "cloudstack_names", Type: "bool", Default: "false", Help: "VMs named r-N-, s-N-, v-N- and l-N- are system VMs (CloudStack)"},
	)}
}

// Open connects to nothing yet: XAPI need not run.
func (driver) Open(_ context.Context, s core.Settings) (core.HypervisorAdapter, error) {
	const path = "hypervisor.settings"
	o, rest, err := ReadConnection(path, s)
	if err != nil {
		return nil, err
	}
	r := NewReader(path, rest)
	a := Options{Host: r.String("host", ""), CloudStackNames: r.Bool("cloudstack_names"), Local: o.Socket != ""}
	if err := r.Done(Name); err != nil {
		return nil, err
	}
	if a.XAPI, err = xapi.New(o); err != nil {
		return nil, err
	}
	return New(a), nil
}

// Options of an adapter that is put together by hand.
type Options struct {
	XAPI *xapi.Client // closed with the adapter
	// Local: this is dom0. Without Host only this host's VMs are listed, and
	// Preflight looks at the machine itself.
	Local bool
	// Host is a name or UUID; see View.
	Host            string
	CloudStackNames bool
	Log             *slog.Logger // nil: slog.Default()
	// Backoff is the first pause before Watch begins anew; it doubles up to
	// fifty times as much. Zero: 100 ms.
	Backoff time.Duration
	// Wait is how long one event.from waits. Zero: 30 s.
	Wait time.Duration
	// Root is where / is; empty: /.
	Root string
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
	if o.Wait == 0 {
		o.Wait = 30 * time.Second
	}
	return &Adapter{o: o, log: o.Log.With("adapter", Name)}
}

// Info implements core.HypervisorAdapter.
func (a *Adapter) Info() core.Info { return driver{}.Info() }

// Close ends the session.
func (a *Adapter) Close() error { return a.o.XAPI.Close(context.Background()) }

// List implements core.HypervisorAdapter.
func (a *Adapter) List(ctx context.Context) ([]core.Instance, error) {
	s, err := a.read(ctx)
	if err != nil {
		return nil, err
	}
	v, err := a.view(s)
	if err != nil {
		return nil, err
	}
	out, problems := s.Instances(v)
	a.report(problems)
	return out, nil
}

// read asks for all there is. The cards come after the VMs and the VMs again if
// one has a card that is not among them: what was plugged in meanwhile is in.
func (a *Adapter) read(ctx context.Context) (*Site, error) {
	s := NewSite()
	var err error
	read := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	c := a.o.XAPI
	read(func() error { s.Hosts, err = xapi.Records[xapi.Host](ctx, c); return err })
	read(func() error { s.Networks, err = xapi.Records[xapi.Network](ctx, c); return err })
	read(func() error { s.VMs, err = xapi.Records[xapi.VM](ctx, c); return err })
	read(func() error { s.VIFs, err = xapi.Records[xapi.VIF](ctx, c); return err })
	return s, err
}

// view says what this adapter shows of a site. A host that is not there is an
// error: an empty list would take the policies of its VMs away.
func (a *Adapter) view(s *Site) (View, error) {
	v := View{CloudStackNames: a.o.CloudStackNames}
	name := a.o.Host
	if name == "" && a.o.Local {
		var err error
		if name, err = a.inventory("INSTALLATION_UUID"); err != nil {
			return v, err
		}
	}
	if name == "" {
		return v, nil
	}
	h, err := FindHost(s.Hosts, name)
	if err != nil {
		return v, err
	}
	v.Host = s.Hosts[h].UUID
	return v, nil
}

// FindHost finds a host by name or UUID.
func FindHost(hosts map[xapi.Ref]xapi.Host, name string) (found xapi.Ref, err error) {
	for ref, h := range hosts {
		switch {
		case h.UUID == name:
			return ref, nil
		case h.Name == name && found != "":
			return "", fmt.Errorf("two hosts of the pool are named %s; use a UUID (xe host-list): %w", name, core.ErrConflict)
		case h.Name == name:
			found = ref
		}
	}
	if found == "" {
		return "", fmt.Errorf("the pool has no host %s (xe host-list): %w", name, core.ErrNotFound)
	}
	return found, nil
}

func (a *Adapter) path(name string) string { return a.o.Root + name }

// inventory reads a key of dom0's own description.
func (a *Adapter) inventory(key string) (string, error) {
	file := a.path("/etc/xensource-inventory")
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("which host this is: %w; name it with hypervisor.settings.host: %w", err, core.ErrNotFound)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if k, v, ok := strings.Cut(lines.Text(), "="); ok && k == key {
			return strings.Trim(v, "' \""), nil
		}
	}
	return "", errors.Join(lines.Err(), fmt.Errorf("%s has no %s; name the host with hypervisor.settings.host: %w", file, key, core.ErrNotFound))
}

func (a *Adapter) report(problems []error) {
	for _, p := range problems {
		a.log.Warn("a part of a VM cannot be used; what it concerns stays closed", "error", p)
	}
}
