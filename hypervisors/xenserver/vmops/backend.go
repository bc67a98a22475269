package vmops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// Name is the driver's name in config.
const Name = "xenserver-vmops"

// Driver makes backends that program a XenServer host through its vmops plugin.
func Driver() core.BackendDriver { return driver{} }

type driver struct{}

// features are those of every version of the plugin. It has no IPv6, filters the
// first NIC alone, knows no protocols by number, no pairs, no multicast, and
// leaves ports that it was not told of open towards the uplink.
var features = []core.Feature{core.FeatureIPv4, core.FeatureEgress, core.FeaturePorts, core.FeatureICMP,
	core.FeatureRemoteGroups, core.FeatureAntiSpoof, core.FeatureSystemVM}

func (driver) Info() core.Info {
	return core.Info{Name: Name, Version: "1", Features: slices.Clone(features), Settings: append(xenserver.ConnectionSettings(),
		core.SettingInfo{Name: "host", Type: "string", Required: true, Help: "the host to program, by name or UUID"})}
}

func (driver) Open(_ context.Context, s core.Settings) (core.SecurityGroupBackend, error) {
	const path = "backend.settings"
	o, rest, err := xenserver.ReadConnection(path, s)
	if err != nil {
		return nil, err
	}
	r := xenserver.NewReader(path, rest)
	host := r.String("host", "")
	if err := r.Done(Name); err != nil {
		return nil, err
	}
	if host == "" {
		return nil, &core.FieldError{Path: path + ".host", Reason: "missing; name the host to program"}
	}
	c, err := xapi.New(o)
	if err != nil {
		return nil, err
	}
	return New(Options{XAPI: c, Host: host}), nil
}

// Options of a backend that is put together by hand.
type Options struct {
	XAPI *xapi.Client // closed with the backend
	Host string       // by name or UUID
	Log  *slog.Logger // nil: slog.Default()
}

// Backend programs one host. It is a core.SecurityGroupBackend.
type Backend struct {
	xapi *xapi.Client
	host string
	log  *slog.Logger

	// calls serialises what writes: vmops has no lock of its own.
	calls    sync.Mutex
	enforced *core.Ruleset // nil until the first Sync
	made     secondHand
}

var _ core.SecurityGroupBackend = (*Backend)(nil)

// New puts a backend together.
func New(o Options) *Backend {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Backend{xapi: o.XAPI, host: o.Host, log: o.Log.With("backend", Name, "host", o.Host)}
}

func (b *Backend) Info() core.Info { return driver{}.Info() }

// Close ends the session. What is enforced stays.
func (b *Backend) Close() error { return b.xapi.Close(context.Background()) }

func findHost(hosts map[xapi.Ref]xapi.Host, name string) (xapi.Ref, error) {
	return xenserver.FindHost(hosts, name)
}

// Sync implements core.SecurityGroupBackend. vmops takes one VM at a time and
// flushes a VM's rules before it writes them, so a VM whose rules change loses
// new connections for that moment; VMs whose rules stay are not touched.
func (b *Backend) Sync(ctx context.Context, r core.Ruleset) error {
	b.calls.Lock()
	defer b.calls.Unlock()
	return b.sync(ctx, r, r.Fingerprint())
}

// Apply is Sync for those VMs that the difference concerns.
func (b *Backend) Apply(ctx context.Context, d core.Delta) error {
	b.calls.Lock()
	defer b.calls.Unlock()
	if b.enforced == nil {
		return fmt.Errorf("nothing was synchronised yet: %w", core.ErrConflict)
	}
	next, err := d.Apply(*b.enforced, b.enforced.Fingerprint())
	if err != nil {
		return err
	}
	return b.sync(ctx, next, d.To)
}

func (b *Backend) sync(ctx context.Context, r core.Ruleset, f core.Fingerprint) error {
	programs, err := plan(r)
	if err != nil {
		return err
	}
	l, err := b.look(ctx)
	if err != nil {
		return err
	}
	if c := xenserver.CheckNetworkBackend(l.info); c.Status != core.StatusOK {
		return fmt.Errorf("%s; %s: %w", c.Summary, c.Fix, core.ErrUnsupported)
	}
	if err := l.check(programs); err != nil {
		return err
	}
	logs, err := b.logs(ctx, l)
	if err != nil {
		return err
	}
	if names := l.strangers(logs); len(names) > 0 {
		return foreign(l, names)
	}
	if l.fingerprint == f && len(l.drift(programs, logs)) == 0 {
		b.enforced = &r
		return nil
	}
	former := l.fingerprint
	if err := b.putFingerprint(ctx, l, core.Fingerprint{}); err != nil {
		return err
	}
	t := transaction{Backend: b, look: l, logs: logs}
	if err := t.run(ctx, programs); err != nil {
		// Undone as if by itself: ctx may be why it failed.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if b.enforced != nil && former == b.enforced.Fingerprint() && t.back(undo, *b.enforced) {
			return errors.Join(err, b.putFingerprint(undo, l, former))
		}
		b.enforced = nil // in doubt: the next is a Sync
		return fmt.Errorf("%w (the host is between two rulesets until the next Sync)", err)
	}
	if err := b.putFingerprint(ctx, l, f); err != nil {
		return err
	}
	b.enforced = &r
	return nil
}

// check looks at what only the pool can tell, before anything is called.
func (l *look) check(programs map[core.VMKey]program) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(programs)) {
		p, g := programs[key], l.vms[key]
		refuse := func(err error) { errs = append(errs, &core.ObjectError{NICs: []core.NICKey{p.nic}, Err: err}) }
		if !g.here || g.device() != p.device {
			return fmt.Errorf("vm %s is not at %s on host %s any more: %w", p.name, p.device, l.info.Name, core.ErrNotReady)
		}
		if err := checkSize(l.info, p); err != nil {
			errs = append(errs, err)
		}
		if r, ok := l.records[key]; ok && r.Domid == int64(g.Domid) && r.MAC != p.nic.MAC.String() && !r.System {
			refuse(fmt.Errorf("vmops keeps the guard of the former MAC %s on %s, and it would cut %s off; start the VM anew: %w", r.MAC, p.device, p.nic.MAC, core.ErrUnsupported))
		}
	}
	return errors.Join(errs...)
}

func (g guest) device() string { return fmt.Sprintf("vif%d.0", int64(g.Domid)) }

// Observe implements core.SecurityGroupBackend. vmops shows nothing but rule
// logs, and those of VMs named i- only: of the others it is known what they were
// told, and whether they have started anew since.
func (b *Backend) Observe(ctx context.Context) (core.Observation, error) {
	b.calls.Lock()
	defer b.calls.Unlock()
	l, err := b.look(ctx)
	if err != nil {
		return core.Observation{}, err
	}
	logs, err := b.logs(ctx, l)
	if err != nil {
		return core.Observation{}, err
	}
	var programs map[core.VMKey]program
	if b.enforced != nil {
		if programs, err = plan(*b.enforced); err != nil {
			return core.Observation{}, err
		}
	}
	o := core.Observation{Fingerprint: l.fingerprint, Drift: l.drift(programs, logs)}
	for _, name := range l.strangers(logs) {
		o.Drift = append(o.Drift, core.Drift{Object: "rule log of " + name, Difference: "unexpected: it was not written from here"})
	}
	return o, nil
}

// drift compares records, logs and running domains, and with programs what they
// should be.
func (l *look) drift(programs map[core.VMKey]program, logs map[string]string) (out []core.Drift) {
	for _, key := range slices.Sorted(maps.Keys(programs)) {
		if _, ok := l.records[key]; !ok {
			out = append(out, core.Drift{Object: "record of " + programs[key].name, Difference: "missing", NIC: programs[key].nic})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(l.records)) {
		r, g := l.records[key], l.vms[key]
		mac, _ := core.ParseMAC(r.MAC)
		add := func(object, difference string) {
			out = append(out, core.Drift{Object: object, Difference: difference, NIC: core.NICKey{VM: key, MAC: mac}})
		}
		p, wanted := programs[key]
		switch {
		case programs != nil && !wanted:
			add("record of "+r.Name, "unexpected")
		case wanted && (!r.sameDefaults(p, r.Domid) || !r.System && r.Signature != signature(p.rules) || !slices.Equal(r.Secondary, p.secondary)):
			add("record of "+r.Name, "changed")
		case g.here && int64(g.Domid) != r.Domid:
			add("rules of "+r.Name, fmt.Sprintf("changed: they are on domain %d, and the VM is domain %d now", r.Domid, int64(g.Domid)))
		case g.here && !r.System && strings.HasPrefix(r.Name, "i-") && logs[r.Name] != r.log(key):
			add("rule log of "+r.Name, fmt.Sprintf("changed: %q, not %q", logs[r.Name], r.log(key)))
		}
	}
	return out
}

// Counters: vmops has none.
func (b *Backend) Counters(context.Context) ([]core.Counter, error) {
	return nil, fmt.Errorf("vmops counts nothing: %w", core.ErrUnsupported)
}

// Teardown implements core.SecurityGroupBackend. The host's own framework stays:
// vmops never takes it away.
func (b *Backend) Teardown(ctx context.Context) error {
	b.calls.Lock()
	defer b.calls.Unlock()
	l, err := b.look(ctx)
	if err != nil {
		return err
	}
	if err := b.putFingerprint(ctx, l, core.Fingerprint{}); err != nil {
		return err
	}
	b.enforced = nil
	for _, key := range slices.Sorted(maps.Keys(l.records)) {
		if err := b.remove(ctx, l, key); err != nil {
			return err
		}
	}
	return b.cleanup(ctx, l)
}

// cleanup has vmops take away what it keeps of VMs that ended while nobody
// looked. Only where nobody else has rules: it goes by names.
func (b *Backend) cleanup(ctx context.Context, l *look) error {
	logs, err := b.logs(ctx, l)
	if err != nil || len(l.strangers(logs)) > 0 {
		return err
	}
	out, err := b.call(ctx, l, "cleanup_rules", map[string]string{"instance": "VM"})
	if err == nil && strings.HasPrefix(out, "-") {
		err = fmt.Errorf("host %s: vmops cleanup_rules answers %q; /var/log/cloud/cloud.log there says why", l.info.Name, out)
	}
	return err
}

func (b *Backend) remove(ctx context.Context, l *look, key core.VMKey) error {
	if err := b.destroy(ctx, l, l.records[key].Name); err != nil {
		return err
	}
	return b.dropRecord(ctx, l, key)
}
