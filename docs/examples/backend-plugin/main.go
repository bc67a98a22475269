// Command backend-plugin enforces on a firewall that takes its rules as a
// file. Put your device in the place of load and store.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin"
)

func main() { plugin.Serve(driver{}, nil) }

type driver struct{}

// Info says what can be set, and what the device can do. A policy that needs
// another feature is refused before it gets here.
func (driver) Info() core.Info {
	return core.Info{
		Name: "acme", Version: "1.0.0",
		Settings: []core.SettingInfo{{Name: "file", Type: "string", Required: true, Help: "where the device reads its rules"}},
		Features: []core.Feature{core.FeatureIPv4, core.FeatureIPv6, core.FeatureEgress, core.FeaturePorts, core.FeatureICMP,
			core.FeatureRemoteGroups, core.FeatureAntiSpoof, core.FeatureFailClosed, core.FeatureMultiNIC, core.FeatureMulticast},
	}
}

// Open binds to one enforcement point and changes nothing there.
func (d driver) Open(_ context.Context, s core.Settings) (core.SecurityGroupBackend, error) {
	file, _ := s["file"].(string)
	if file == "" {
		return nil, &core.FieldError{Path: "backend.settings.file", Reason: "missing; name the file that the device reads"}
	}
	return &point{file: file, info: d.Info()}, nil
}

type point struct {
	file string
	info core.Info
}

// policy is what the device holds: the rules, and whose they are.
type policy struct {
	Fingerprint core.Fingerprint
	Ruleset     core.Ruleset
}

func (p *point) Info() core.Info { return p.info }

// Preflight says what is wrong with the point, with evidence and the way out.
func (p *point) Preflight(context.Context) ([]core.Check, error) {
	c := core.Check{Name: "acme-file", Summary: "the device's rules can be read"}
	if _, err := p.load(); err != nil {
		c = core.Check{Name: "acme-file", Status: core.StatusError, Summary: "the device's rules cannot be read", Evidence: err.Error(), Fix: "rm " + p.file}
	}
	return []core.Check{c}, nil
}

// Sync makes the point hold exactly r: all of it, or on error what it held.
func (p *point) Sync(_ context.Context, r core.Ruleset) error {
	return p.store(policy{r.Fingerprint(), r})
}

// Apply is Sync by difference. A device that takes single changes gets the
// entries of d instead.
func (p *point) Apply(_ context.Context, d core.Delta) error {
	now, err := p.load()
	if err != nil {
		return err
	}
	next, err := d.Apply(now.Ruleset, now.Fingerprint) // ErrConflict: the agent syncs
	if err != nil {
		return err
	}
	return p.store(policy{d.To, next})
}

// Observe reads back what is enforced now. Whatever somebody else changed is
// drift, and the agent puts it right.
func (p *point) Observe(context.Context) (core.Observation, error) {
	now, err := p.load()
	if err != nil {
		return core.Observation{}, err
	}
	o := core.Observation{Fingerprint: now.Fingerprint}
	if now.Fingerprint != (core.Fingerprint{}) && now.Ruleset.Fingerprint() != now.Fingerprint {
		o.Drift = []core.Drift{{Object: p.file, Difference: "changed: the rules are not those of the fingerprint beside them"}}
	}
	return o, nil
}

// Counters: this device has none, and does not name the feature.
func (p *point) Counters(context.Context) ([]core.Counter, error) { return nil, nil }

// Teardown removes everything that was ever made here.
func (p *point) Teardown(context.Context) error {
	if err := os.Remove(p.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the device's rules: %w", err)
	}
	return nil
}

// Close lets go; the rules stay.
func (p *point) Close() error { return nil }

func (p *point) load() (now policy, err error) {
	b, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return policy{}, nil // nothing of ours is there
	}
	if err == nil {
		err = json.Unmarshal(b, &now)
	}
	if err != nil {
		return policy{}, fmt.Errorf("read the device's rules: %w", err)
	}
	return now, nil
}

// store writes aside and renames: old or new, never a mix.
func (p *point) store(next policy) error {
	b, err := json.MarshalIndent(next, "", "\t")
	if err != nil {
		return err
	}
	aside := p.file + ".new"
	if err := os.WriteFile(aside, b, 0o600); err != nil {
		return fmt.Errorf("write the device's rules: %w: %w", core.ErrNotReady, err)
	}
	return os.Rename(aside, p.file)
}
