package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/ipset"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// found is what stands in the kernel.
type found struct {
	objects objects       // ours
	read    xtables.State // all, with the rules of others
	sets    ipset.Sets    // all
	note    string        // the fingerprint kept there, if any
}

// tables is what the kernel's tables were in one of nftables' generations.
type tables struct {
	generation uint32
	state      xtables.State // never changed once it is here
}

// readTables reads all tables, with three processes, unless nobody has changed
// any since the last time: the nft variants have a number for that, legacy none.
func (b *Backend) readTables(ctx context.Context) (xtables.State, error) {
	generation := b.generationNow(ctx)
	if b.tools.IP == xtables.NFT && generation != 0 && b.seen.generation == generation {
		return b.seen.state, nil
	}
	b.seen = tables{}
	state := xtables.State{}
	for _, family := range xtables.Families {
		s, _, err := b.tools.Read(ctx, family)
		if err != nil {
			return nil, fmt.Errorf("read back the rules: %w", err)
		}
		maps.Copy(state, s)
	}
	if b.generationNow(ctx) == generation {
		b.seen = tables{generation, state}
	}
	return state, nil
}

// read reads everything back: the tables, and one dump of the sets.
func (b *Backend) read(ctx context.Context, want objects) (found, error) {
	var f found
	var err error
	if f.read, err = b.readTables(ctx); err != nil {
		return found{}, err
	}
	if f.sets, err = b.sets.List(ctx); err != nil {
		return found{}, err
	}
	f.note = f.sets.Note(noteSet)
	f.objects = objects{rules: f.read.Ours(ourMarkers(), want.rules)}
	f.objects.sets = f.ours(want.sets)
	return f, nil
}

// ourMarkers tell our chains.
func ourMarkers() xtables.Markers {
	return xtables.Markers{Prefix: ownPrefix, Rules: []string{mark().Key(), rule(jump(chainMine)).Key()}}
}

// ours are the sets that are wanted, those that bear our names, and those that
// our rules name.
func (f found) ours(want ipset.Sets) ipset.Sets {
	out := f.sets.Owned(want, ownPrefix, "rw4-", "rw6-")
	for _, t := range f.objects.rules {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				for _, o := range r.Options {
					if o.Name == "--match-set" && len(o.Values) > 0 && f.sets[o.Values[0]] != nil {
						out[o.Values[0]] = f.sets[o.Values[0]]
					}
				}
			}
		}
	}
	delete(out, noteSet)
	return out
}

// owned names all sets of ours, the note too.
func (f found) owned() []string {
	names := slices.Sorted(maps.Keys(f.objects.sets))
	if f.sets[noteSet] != nil {
		names = append(names, noteSet)
	}
	return names
}

// change leads from what is there to what is wanted.
type change struct {
	have   objects
	read   xtables.State // nil when have is what was last written
	want   *enforced
	narrow xtables.State // ebtables: what both allow
	note   string
}

// write makes a change. When a part of it is refused, what was done is undone.
func (b *Backend) write(ctx context.Context, c change) error {
	w := writer{b: b, now: objects{rules: maps.Clone(c.have.rules), sets: c.have.sets}, read: c.read}
	// The last part of a change is the ports' guard, or the undoing.
	defer func() { b.written = b.generationNow(context.WithoutCancel(ctx)) }()
	err := w.run(ctx, c)
	if err == nil {
		b.enforced, b.lost = c.want, nil
		b.counted.forget(c.want)
		b.guardPorts(ctx)
		return nil
	}
	err = blame(err)
	// The undoing must not end with the caller's patience.
	ctx = context.WithoutCancel(ctx)
	if undo := w.undo(ctx, c); undo != nil {
		b.lose(fmt.Errorf("a change was refused (%w), and undoing it failed: %w", err, undo))
		return fmt.Errorf("%w; undoing the change failed: %w", err, undo)
	}
	return err
}

// writer keeps account of what stands while a change is under way.
type writer struct {
	b    *Backend
	now  objects
	read xtables.State
}

func (w *writer) run(ctx context.Context, c change) error {
	sets := ipset.Diff(w.now.sets, c.want.objects.sets)
	scripts := map[xtables.Family]xtables.Script{}
	for _, f := range xtables.Families {
		scripts[f] = xtables.Diff(f, w.now.rules, c.want.objects.rules, w.read)
	}
	idle := sets.Empty()
	for _, s := range scripts {
		idle = idle && s.Empty()
	}
	fingerprint := c.want.fingerprint.String()
	if idle && c.note == fingerprint {
		return nil
	}
	if !idle {
		// Until all is done, what is in force has no name.
		if err := w.b.sets.WriteNote(ctx, noteSet, ""); err != nil {
			return err
		}
	}
	if !scripts[xtables.Bridge].Empty() {
		if err := w.family(ctx, xtables.Bridge, c.narrow); err != nil {
			return err
		}
	}
	if err := w.narrowSets(ctx, sets, c.want.objects.sets); err != nil {
		return err
	}
	for _, f := range []xtables.Family{xtables.IPv4, xtables.IPv6} {
		if err := w.family(ctx, f, c.want.objects.rules); err != nil {
			return err
		}
	}
	if err := w.b.sets.Add(ctx, sets.Add, c.want.objects.sets); err != nil {
		return err
	}
	if err := w.family(ctx, xtables.Bridge, c.want.objects.rules); err != nil {
		return err
	}
	if err := w.b.sets.Destroy(ctx, sets.Destroy); err != nil {
		// A rule of somebody else names it. It does no harm.
		w.b.log.Warn("sets that no rule of ours needs any more are left over", "error", err)
	}
	return w.b.sets.WriteNote(ctx, noteSet, fingerprint)
}

// narrowSets makes new sets and takes members out of the others. What stands
// under a new one's name is of another kind, or is left over from before, when
// it could not be destroyed.
func (w *writer) narrowSets(ctx context.Context, sets ipset.Change, want ipset.Sets) error {
	inTheWay := w.b.sets.Destroy(ctx, slices.Sorted(maps.Keys(sets.Create)))
	if err := w.b.sets.Create(ctx, sets.Create); err != nil {
		return errors.Join(err, inTheWay) // the first knows whose the sets are
	}
	return w.b.sets.Remove(ctx, sets.Remove, want)
}

// family makes the tables of one program what want says.
func (w *writer) family(ctx context.Context, f xtables.Family, want xtables.State) error {
	script := xtables.Diff(f, w.now.rules, want, w.read)
	if script.Empty() {
		return nil
	}
	if err := w.b.tools.Apply(ctx, script); err != nil {
		return err
	}
	w.b.counted.rewritten(script.Changed)
	w.stands(f, want)
	return nil
}

// stands notes that the tables of one program are as state says.
func (w *writer) stands(f xtables.Family, state xtables.State) {
	for id := range w.now.rules {
		if id.Family == f {
			delete(w.now.rules, id)
		}
	}
	for id, t := range state {
		if id.Family == f {
			w.now.rules[id] = t
		}
	}
	for id := range w.read {
		if id.Family == f {
			w.read = maps.Clone(w.read)
			delete(w.read, id) // ours are at the head now
		}
	}
}

// undo goes back to what was there. What the failed program has done is read.
func (w *writer) undo(ctx context.Context, c change) error {
	have, err := w.b.read(ctx, objects{rules: mergedChains(c.have.rules, c.want.objects.rules), sets: mergedSets(c.have.sets, c.want.objects.sets)})
	if err != nil {
		return err
	}
	back := ipset.Diff(have.objects.sets, c.have.sets)
	u := writer{b: w.b, now: have.objects, read: have.read}
	var errs []error
	errs = append(errs, u.narrowSets(ctx, ipset.Change{Create: back.Create}, c.have.sets))
	errs = append(errs, w.b.sets.Add(ctx, back.Add, c.have.sets))
	for _, f := range []xtables.Family{xtables.IPv4, xtables.IPv6, xtables.Bridge} {
		errs = append(errs, u.family(ctx, f, c.have.rules))
	}
	errs = append(errs, w.b.sets.Remove(ctx, back.Remove, c.have.sets))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := w.b.sets.Destroy(ctx, back.Destroy); err != nil {
		w.b.log.Warn("sets of a change that was undone are left over", "error", err)
	}
	return w.b.sets.WriteNote(ctx, noteSet, c.note)
}

func mergedChains(states ...xtables.State) xtables.State {
	out := xtables.State{}
	for _, s := range states {
		for id, t := range s {
			if out[id] == nil {
				out[id] = xtables.NewTable()
			}
			maps.Copy(out[id].Chains, t.Chains)
		}
	}
	return out
}

func mergedSets(all ...ipset.Sets) ipset.Sets {
	out := ipset.Sets{}
	for _, s := range all {
		maps.Copy(out, s)
	}
	return out
}

// blame ties a refusal to the NICs and groups whose objects it names, so that the
// engine can go on without them.
func blame(err error) error {
	out := &core.ObjectError{Err: err}
	note := func(of any) {
		a, ok := of.(about)
		switch {
		case !ok:
		case a.group != "":
			if !slices.Contains(out.Groups, a.group) {
				out.Groups = append(out.Groups, a.group)
			}
		case !slices.Contains(out.NICs, a.nic):
			out.NICs = append(out.NICs, a.nic)
		}
	}
	var rules *xtables.Refused
	if errors.As(err, &rules) {
		for _, of := range rules.About {
			note(of)
		}
	}
	var set *ipset.Refused
	if errors.As(err, &set) {
		note(set.About)
	}
	if len(out.NICs) == 0 && len(out.Groups) == 0 {
		return err
	}
	return out
}
