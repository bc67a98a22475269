package engine

import (
	"bytes"
	"context"
	"encoding/gob"
	"log/slog"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/state"
)

// keeper remembers, beyond the engine's end, what is enforced in place of what
// was refused. Without it a restart could only close those NICs: desired state
// does not tell what was before.
type keeper struct {
	store *state.Store
	key   string
	log   *slog.Logger
	saved core.Fingerprint
}

func newKeeper(s *state.Store, point string, log *slog.Logger) *keeper {
	return &keeper{store: s, key: "kept/" + point, log: log, saved: core.Ruleset{}.Fingerprint()}
}

// load gives what was saved last. What cannot be read is nothing.
func (k *keeper) load() (r core.Ruleset) {
	memo, err := k.store.Memo(k.key)
	if err == nil && memo != nil {
		err = gob.NewDecoder(bytes.NewReader(memo)).Decode(&r)
	}
	if err != nil {
		k.log.Warn("what was kept for refused NICs is not known any more; they are closed if they are refused again", "error", err)
		r = core.Ruleset{}
	}
	k.saved = r.Fingerprint()
	return r
}

// save remembers r, which is empty most of the time.
func (k *keeper) save(r core.Ruleset) {
	f := r.Fingerprint()
	if f == k.saved {
		return
	}
	var memo bytes.Buffer
	err := gob.NewEncoder(&memo).Encode(r)
	if len(r.NICs) == 0 && len(r.Groups) == 0 && len(r.Sets) == 0 {
		memo = bytes.Buffer{} // nil: forget
	}
	if err == nil {
		err = k.store.PutMemo(k.key, memo.Bytes())
	}
	if err != nil {
		k.log.Warn("what is kept for refused NICs cannot be remembered beyond a restart", "error", err)
		return
	}
	k.saved = f
}

// kept is the part of what is enforced that is there in place of something
// that was refused.
func (f *enforcer) kept(affected map[core.NICKey]error) core.Ruleset {
	r := core.Ruleset{Groups: map[string]core.GroupPolicy{}, Sets: map[string]core.AddressSet{}, NICs: map[core.NICKey]core.NICPolicy{}}
	group := func(name string) {
		g, ok := f.enforced.Groups[name]
		if !ok {
			return
		}
		r.Groups[name] = g
		for _, e := range g.Entries {
			if s, ok := f.enforced.Sets[e.Peer.Group]; ok {
				r.Sets[e.Peer.Group] = s
			}
		}
	}
	for k := range affected {
		if n, ok := f.enforced.NICs[k]; ok && !isBlank(n) {
			r.NICs[k] = n
			for _, g := range n.Groups {
				group(g)
			}
		}
	}
	for u := range f.holds {
		if u.group != "" {
			group(u.group)
			if s, ok := f.enforced.Sets[u.group]; ok {
				r.Sets[u.group] = s
			}
		}
	}
	return r
}

// recall starts from what an earlier life kept, if what it enforced is still
// there.
func (f *enforcer) recall(ctx context.Context, r core.Ruleset) error {
	if len(r.NICs)+len(r.Groups)+len(r.Sets) == 0 {
		return nil
	}
	o, err := f.observe(ctx)
	if err != nil {
		return err
	}
	if o.Fingerprint != (core.Fingerprint{}) {
		f.enforced = policy.Version(r)
	}
	return nil
}
