package vmware

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

// explain says what an error of vCenter means here: which of core's sentinels
// it is, and what to do.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	var (
		denied     *types.NoPermission
		concurrent *types.ConcurrentAccess
		used       *types.ResourceInUse
		twice      *types.DuplicateName
		gone       *types.ManagedObjectNotFound
		session    *types.NotAuthenticated
		transport  *url.Error
		network    net.Error
	)
	is := func(target any) bool { _, ok := fault.As(err, target); return ok }
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, core.ErrNotReady), errors.Is(err, core.ErrConflict), errors.Is(err, core.ErrUnsupported), errors.Is(err, core.ErrInvalid):
		return fmt.Errorf("%s: %w", what, err)
	case is(&session): // NotAuthenticated is a NoPermission, too: first
		return fmt.Errorf("%s: vCenter's session has ended: %w: %w", what, err, core.ErrNotReady)
	case is(&denied):
		return fmt.Errorf("%s: the vCenter user lacks the privilege %s; grant it: %w", what, denied.PrivilegeId, err)
	case is(&concurrent):
		return fmt.Errorf("%s: somebody else has changed the switch at the same moment: %w: %w", what, err, core.ErrConflict)
	case is(&used):
		return fmt.Errorf("%s: %s %s is in use: %w", what, used.Type, used.Name, err)
	case is(&twice):
		return fmt.Errorf("%s: something else is called %s; rename it, or set another prefix: %w", what, twice.Name, err)
	case is(&gone):
		return fmt.Errorf("%s: %s is gone: %w: %w", what, gone.Obj.Value, err, core.ErrConflict)
	case errors.As(err, &transport), errors.As(err, &network):
		return fmt.Errorf("%s: vCenter cannot be reached: %w: %w", what, err, core.ErrNotReady)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// inUse says whether something is still connected to what was to go.
func inUse(err error) bool {
	var used *types.ResourceInUse
	_, ok := fault.As(err, &used)
	return err != nil && ok
}

// lost says whether the answer of a call may be lost, or the call never made:
// no object is to blame.
func lost(err error) bool {
	return errors.Is(err, core.ErrNotReady) || errors.Is(err, core.ErrConflict) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
