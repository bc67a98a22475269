package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/ringwall/ringwall/core"
)

// ErrLeftBehind says that a new backend is in force and that the former could
// not take down all that it had made. That goes on dropping.
var ErrLeftBehind = errors.New("the new backend is in force, but the former left something behind")

type swap struct {
	backend core.SecurityGroupBackend
	done    chan error
}

// swap puts another backend in place of the point's. Both enforce for a while,
// so that no moment is open; the former then takes down what it made. With an
// error before that, nothing has changed but that the new one may have left
// something at the point.
func (p *point) swap(ctx context.Context, s swap) error {
	p.mu.Lock()
	t := p.target
	p.mu.Unlock()
	if t == nil {
		return fmt.Errorf("the hypervisor has not answered yet, so that there is no ruleset to go on with: %w", core.ErrNotReady)
	}
	info := s.backend.Info()
	if err := core.CheckFeatures(info.Name, info.Features, t.Ruleset); err != nil {
		return err
	}
	next := newEnforcer(s.backend, p.timing, p.log, p.stats)
	whole := &target{Versioned: t.Versioned, seq: t.seq}
	if err := next.takeOver(ctx, whole); err != nil {
		err = fmt.Errorf("the new backend %s is not used: %w", info.Name, err)
		return errors.Join(err, next.call(ctx, s.backend.Teardown))
	}
	former := p.enforcer
	p.enforcer = next
	p.mu.Lock()
	p.current, p.info = s.backend, info
	p.mu.Unlock()
	p.log.Info("backend swapped", "from", former.backend.Info().Name, "to", info.Name)
	err := errors.Join(former.call(ctx, former.backend.Teardown), former.backend.Close())
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrLeftBehind, err)
	}
	p.reconcile(ctx)
	return err
}

// takeOver is enforce for a backend that nothing may be kept back from: what
// is enforced for a NIC that it refuses is another's, which goes.
func (f *enforcer) takeOver(ctx context.Context, t *target) error {
	affected, err := f.enforce(ctx, t)
	for k, refusal := range affected {
		err = errors.Join(err, fmt.Errorf("nic %s: %w", k, refusal))
	}
	return err
}
