package iptables

import (
	"context"

	"github.com/ringwall/ringwall/core"
)

// Preflight looks at the point and changes nothing.
func (b *Backend) Preflight(ctx context.Context) ([]core.Check, error) { return nil, nil }
