package plugins_test

import (
	"cmp"
	"path/filepath"
	"testing"

	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/core/plugin/plugintest"
)

// Every binary starts under its pin and serves what its name says.
func TestBinaries(t *testing.T) {
	dirs, err := filepath.Glob("ringwall-plugin-*")
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		t.Run(dir, func(t *testing.T) {
			p, err := plugintest.Start(t.Context(), t, plugintest.Build(t, "./"+dir))
			if err != nil {
				t.Fatal(err)
			}
			s := p.State()
			if !s.Pinned || s.Phase != plugin.PhaseRunning || dir != "ringwall-plugin-"+cmp.Or(s.Backend, s.Adapter) {
				t.Errorf("state: %+v", s)
			}
		})
	}
}
