package agent_test

import (
	"errors"
	"testing"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/engine"
)

// TestProgram: the agent enforces what the hook says, while its adapter hangs.
func TestProgram(t *testing.T) {
	h := newHost(t)
	a := open(t, h, nil)
	apply(t, a, api.ApplyRequest{Manifest: groups + vms})
	release := h.Adapter.HangList()
	defer release()
	r, err := a.Program(t.Context(), api.NewProgramRequest(agenttest.Instance("db1", dbMAC, "tap2")))
	if err != nil || len(r.NICs) != 1 || r.NICs[0].Outcome != engine.InForce {
		t.Fatalf("%+v, %v", r, err)
	}
	if n := len(h.Backend.Ruleset().NICs); n != 2 {
		t.Errorf("%d NICs are enforced", n)
	}
	r, err = a.Program(t.Context(), api.NewProgramRequest(agenttest.Instance("unheard-of", "02:00:00:00:09:01", "tap9")))
	if err != nil || len(r.NICs) != 1 || r.NICs[0].Outcome != engine.NoPolicy {
		t.Errorf("%+v, %v", r, err)
	}
	var f *core.FieldError
	if _, err := a.Program(t.Context(), api.ProgramRequest{Key: "x", Kind: "router"}); !errors.As(err, &f) || f.Path != "kind" {
		t.Errorf("a kind that is none: %v", err)
	}
}

func TestProgramStandalone(t *testing.T) {
	a := open(t, newHost(t), func(o *agent.Options) { o.Standalone = true })
	if _, err := a.Program(t.Context(), api.ProgramRequest{}); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("error is %v", err)
	}
}
