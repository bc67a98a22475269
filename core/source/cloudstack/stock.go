package cloudstack

import (
	"context"
	"fmt"

	"github.com/ringwall/ringwall/core"
)

// Stock is what the stock script has made of rules, and may have left.
type Stock interface {
	// Remove takes away all that is there for a VM, and lets its traffic past
	// what is there for its bridges.
	Remove(ctx context.Context, vm string, devices []string) error
}

func (s *Source) yield(context.Context, string)       {}
func (s *Source) removeStock(context.Context, string) {}

func (s *Source) adopt(context.Context) (Answer, error) {
	return Answer{}, fmt.Errorf("adopt: %w", core.ErrUnsupported)
}
func (s *Source) release(context.Context) (Answer, error) {
	return Answer{}, fmt.Errorf("release: %w", core.ErrUnsupported)
}
