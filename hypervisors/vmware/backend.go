package vmware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25"

	"github.com/ringwall/ringwall/core"
)

// BackendDriver makes backends that keep VMs apart with private VLANs.
func BackendDriver() core.BackendDriver { return backendDriver{} }

type backendDriver struct{}

// features: what is not here is refused by name when a policy asks for it. Of
// those here, FeatureSegments says that addresses, and groups other than a
// NIC's own, are refused later, by Sync.
var features = []core.Feature{core.FeatureSegments, core.FeatureIPv4, core.FeatureIPv6, core.FeatureRemoteGroups,
	core.FeatureNoAntiSpoof, core.FeaturePairs, core.FeatureMultiNIC, core.FeatureSystemVM, core.FeatureMulticast, core.FeatureFailClosed, core.FeatureEvents}

func (backendDriver) Info() core.Info {
	return core.Info{Name: Name, Version: "1", Settings: backendInfos, Features: append(slices.Clone(features), core.FeatureAntiSpoof)}
}

// Open needs no vCenter yet.
func (backendDriver) Open(_ context.Context, s core.Settings) (core.SecurityGroupBackend, error) {
	parsed, err := parseBackendSettings(s)
	if err != nil {
		return nil, err
	}
	return newBackend(parsed), nil
}

func newBackend(s settings) *Backend {
	return &Backend{settings: s, conn: newConnection(s.endpoint), log: slog.Default().With("backend", Name), eventPause: 500 * time.Millisecond}
}

// Backend is a core.SecurityGroupBackend for one distributed switch.
type Backend struct {
	settings settings
	conn     *connection
	log      *slog.Logger
	// eventPause is how long Events gathers changes.
	eventPause time.Duration

	mu   sync.Mutex // of told
	told *told
}

// told is what the switch was last brought to. Nothing where it may be
// something else.
type told struct {
	core.Ruleset
	fingerprint core.Fingerprint
}

// Info implements core.SecurityGroupBackend.
func (b *Backend) Info() core.Info {
	info := backendDriver{}.Info()
	if !b.settings.macOnly {
		info.Features = slices.Clone(features)
	}
	return info
}

// Plan says what Sync(r) would do, and does nothing. Its errors are Sync's: what
// private VLANs cannot express is named here.
func (b *Backend) Plan(ctx context.Context, r core.Ruleset) ([]Step, error) {
	want, err := b.intent(r, r.Fingerprint())
	if err != nil {
		return nil, err
	}
	_, sw, p, err := b.plan(ctx, want)
	if err != nil {
		return nil, err
	}
	return p.steps(sw.groups), nil
}

// intent translates a ruleset.
func (b *Backend) intent(r core.Ruleset, f core.Fingerprint) (intent, error) {
	want := intent{networks: map[int]network{}, prefix: b.settings.prefix, fingerprint: f}
	for primary, n := range b.settings.networks {
		if r.Options.ManagesBridge(bridgeOf(primary)) {
			want.networks[primary] = n
		}
	}
	managed := func(vlan int) bool { _, ok := want.networks[vlan]; return ok }
	var err error
	want.segments, err = translation{Ruleset: r, managed: managed, macOnly: b.settings.macOnly}.segments()
	return want, err
}

// plan reads the switch and works out what has to change.
func (b *Backend) plan(ctx context.Context, want intent) (*vim25.Client, *virtualSwitch, *plan, error) {
	client, sw, cards, err := b.look(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := newPlan(sw, cards, want)
	if err == nil {
		err = p.refuseStrays()
	}
	return client, sw, p, err
}

func (b *Backend) look(ctx context.Context) (*vim25.Client, *virtualSwitch, []card, error) {
	client, err := b.conn.connect(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	sw, err := b.settings.read(ctx, client)
	if err != nil {
		return nil, nil, nil, err
	}
	machines, err := sw.machines(ctx, client)
	if err != nil {
		return nil, nil, nil, err
	}
	var cards []card
	for _, m := range machines {
		cards = append(cards, sw.cards(m)...)
	}
	return client, sw, cards, nil
}

func (p *plan) refuseStrays() error {
	if len(p.strays) == 0 {
		return nil
	}
	var names []string
	for _, c := range p.strays {
		names = append(names, fmt.Sprintf("%s (%s)", c.vm.name, c.mac))
	}
	return fmt.Errorf("the network is not managed any more, and the port group that these NICs came from is not known or gone; connect them to one, then try again: %s: %w", strings.Join(names, ", "), core.ErrNotReady)
}

// Sync implements core.SecurityGroupBackend.
func (b *Backend) Sync(ctx context.Context, r core.Ruleset) error {
	return b.enforce(ctx, r, r.Fingerprint())
}

// Apply implements core.SecurityGroupBackend. The switch is compared as a whole
// all the same: it is read in a few calls, and whatever is there is known then.
func (b *Backend) Apply(ctx context.Context, d core.Delta) error {
	b.mu.Lock()
	now := b.told
	b.mu.Unlock()
	if now == nil {
		return fmt.Errorf("it is not known here what the switch was last brought to: %w", core.ErrConflict)
	}
	next, err := d.Apply(now.Ruleset, now.fingerprint)
	if err != nil {
		return err
	}
	return b.enforce(ctx, next, d.To)
}

func (b *Backend) enforce(ctx context.Context, r core.Ruleset, f core.Fingerprint) error {
	want, err := b.intent(r, f)
	if err != nil {
		return err // nothing was written
	}
	if err := b.bring(ctx, want); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = &told{r, f}
	return nil
}

// bring carries a plan out and reads back what has become of it.
func (b *Backend) bring(ctx context.Context, want intent) error {
	client, sw, p, err := b.plan(ctx, want)
	if err != nil {
		return err
	}
	for _, s := range p.steps(sw.groups) {
		b.log.Info("changing the switch", "switch", sw.name, "step", s.String())
	}
	w := &writer{client: client, sw: sw, place: b.settings.place, plan: p}
	if err := w.network(ctx); err != nil {
		return err
	}
	if err := w.connect(ctx); err != nil {
		return err
	}
	if len(p.park)+len(p.add)+len(p.set)+len(p.moves) > 0 {
		if err := b.verify(ctx, want, w); err != nil {
			return err
		}
	}
	kept, err := w.tidy(ctx)
	for _, k := range kept {
		b.log.Warn("something of ours is of no use any more and cannot be removed yet", "error", k)
	}
	if err != nil {
		return err
	}
	return w.note(ctx)
}

// verify reads the switch back. What is still to be done has not been done.
func (b *Backend) verify(ctx context.Context, want intent, w *writer) error {
	_, sw, p, err := b.plan(ctx, want)
	if err != nil {
		return err
	}
	w.sw = sw
	var left []string
	for _, d := range p.drift(sw.groups) {
		left = append(left, d.Object+": "+d.Difference)
	}
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("switch %s does not hold what was written to it: %s: %w", sw.name, strings.Join(left, "; "), core.ErrConflict)
}

// Observe implements core.SecurityGroupBackend.
func (b *Backend) Observe(ctx context.Context) (core.Observation, error) {
	b.mu.Lock()
	now := b.told
	b.mu.Unlock()
	_, sw, cards, err := b.look(ctx)
	if err != nil {
		return core.Observation{}, err
	}
	o := core.Observation{Fingerprint: sw.kept()}
	if now == nil {
		return o, nil // nothing to compare with: whoever started us Syncs
	}
	want, err := b.intent(now.Ruleset, now.fingerprint)
	if err != nil {
		return core.Observation{}, err
	}
	p, err := newPlan(sw, cards, want)
	if err != nil {
		return core.Observation{}, err
	}
	o.Drift = p.drift(sw.groups)
	if len(want.networks) == 0 {
		o.Fingerprint = now.fingerprint // it has no place on the switch
	}
	return o, nil
}

// kept is the fingerprint that is written on the closed port groups; zero when
// they differ, as in the middle of a Sync.
func (sw *virtualSwitch) kept() core.Fingerprint {
	var found []core.Fingerprint
	for _, g := range sw.groups {
		if g.mark != nil && g.mark.Kind == Closed && !slices.Contains(found, g.mark.Ruleset) {
			found = append(found, g.mark.Ruleset)
		}
	}
	if len(found) != 1 {
		return core.Fingerprint{}
	}
	return found[0]
}

// Counters implements core.SecurityGroupBackend: private VLANs count nothing.
func (b *Backend) Counters(context.Context) ([]core.Counter, error) { return nil, nil }

// Teardown implements core.SecurityGroupBackend: every NIC goes back to the port
// group that it came from.
func (b *Backend) Teardown(ctx context.Context) error {
	if err := b.bring(ctx, intent{}); err != nil {
		return err
	}
	b.mu.Lock()
	b.told = nil
	b.mu.Unlock()
	_, sw, _, err := b.look(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, g := range sw.groups {
		if g.mark != nil {
			errs = append(errs, fmt.Errorf("port group %s cannot be removed while something that we did not put there is connected to it: %w", g.name, core.ErrConflict))
		}
	}
	return errors.Join(errs...)
}

// Close implements core.SecurityGroupBackend.
func (b *Backend) Close() error { return b.conn.close() }
