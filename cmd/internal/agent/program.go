package agent

import (
	"context"
	"fmt"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
)

// Program puts a VM's policy in force before it runs.
func (a *Agent) Program(ctx context.Context, in api.ProgramRequest) (api.ProgramResult, error) {
	if a.o.Standalone {
		return api.ProgramResult{}, fmt.Errorf("a standalone command cannot remember a VM that its hypervisor does not list yet; run ringwalld: %w", core.ErrUnsupported)
	}
	vm, err := in.Instance()
	if err != nil {
		return api.ProgramResult{}, err
	}
	nics, err := a.engine.Program(ctx, vm)
	for i := range nics {
		strip(&nics[i].NICStatus)
	}
	return api.ProgramResult{NICs: nics}, err
}
