package agent

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/config"
)

// BootClosed closes the managed bridges before anything can start a VM on
// them: it enforces the config's options without any NIC, so that each port
// that looks like a VM's passes nothing. It asks no hypervisor, and the
// state only which bridges CloudStack has named. Where the point holds a ruleset already, that one stays: it is no more
// open, and running VMs are in it. It says whether it has closed anything.
func BootClosed(ctx context.Context, c *config.Loaded, r Registry, log *slog.Logger) (closed bool, err error) {
	b, err := opener{registry: r, config: c, log: log}.backend(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		if e := b.close(); err == nil {
			err = e
		}
	}()
	o, err := b.value.Observe(ctx)
	if err != nil {
		return false, fmt.Errorf("backend %s: look at what is enforced: %w", b.name, err)
	}
	if o.Fingerprint != (core.Fingerprint{}) {
		return false, nil
	}
	if err := b.value.Sync(ctx, core.Ruleset{Options: bootOptions(ctx, c, log)}); err != nil {
		return false, fmt.Errorf("backend %s: close the ports: %w", b.name, err)
	}
	return true, nil
}
