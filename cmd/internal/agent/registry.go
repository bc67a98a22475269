package agent

import (
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/config"
)

// Registry has the drivers and adapters of a program by the name they have in
// config.
type Registry struct {
	Backends map[string]core.BackendDriver
	Adapters map[string]core.AdapterDriver
}

// NewRegistry makes a Registry of drivers by their own names.
func NewRegistry(backends []core.BackendDriver, adapters []core.AdapterDriver) Registry {
	r := Registry{map[string]core.BackendDriver{}, map[string]core.AdapterDriver{}}
	for _, d := range backends {
		r.Backends[d.Info().Name] = d
	}
	for _, d := range adapters {
		r.Adapters[d.Info().Name] = d
	}
	return r
}

// Known describes them, for config.
func (r Registry) Known() config.Known {
	k := config.Known{Backends: map[string]core.Info{}, Adapters: map[string]core.Info{}}
	for name, d := range r.Backends {
		k.Backends[name] = d.Info()
	}
	for name, d := range r.Adapters {
		k.Adapters[name] = d.Info()
	}
	return k
}
