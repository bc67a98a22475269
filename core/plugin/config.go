package plugin

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/process"
)

// Config says which program to run and how far to trust it.
type Config struct {
	// Name is what the config calls the plugin; messages and logs use it.
	Name string
	// Path of the program, absolute. Neither the file nor a directory on the
	// way may be writable by anybody but root (or the agent's own user).
	Path string
	// SHA256 are the sums, in hexadecimal, that the program may have: more
	// than one while a fleet is upgraded. None is refused unless AllowUnpinned.
	SHA256        []string
	AllowUnpinned bool
	// RunDir holds the plugins' sockets; it is made if need be, mode 0700.
	RunDir string

	// Timeouts; zero is the default. StartTimeout (30s) is from the start of
	// the program to its description. CallTimeout (1m) bounds calls that read,
	// SyncTimeout (5m) those that change the point: Sync, Apply, RevokeFlows,
	// Teardown. A plugin that exceeds one is killed and started again, so a
	// caller's own deadline should be longer.
	StartTimeout, CallTimeout, SyncTimeout time.Duration
	// Heartbeat (10s) is how often the process is asked whether it lives.
	Heartbeat time.Duration
	// RestartMin (500ms) and RestartMax (1m) bound the wait before a restart,
	// which doubles each time until the plugin has run for RestartMax.
	RestartMin, RestartMax time.Duration

	// Logger gets the plugin's own log, and ours about it. Nil is slog's default.
	Logger *slog.Logger
}

// DefaultRunDir is where the agent keeps the plugins' sockets.
const DefaultRunDir = "/run/ringwall/plugins"

// Validate says what is wrong with c without looking at the file, as a
// FieldError with a path below plugins.NAME.
func (c Config) Validate() error {
	wrong := func(field, value, reason string) error {
		return &core.FieldError{Path: "plugins." + c.Name + "." + field, Value: value, Reason: reason}
	}
	switch {
	case c.Name == "":
		return &core.FieldError{Path: "plugins", Reason: "a plugin without a name"}
	case c.Path == "":
		return wrong("path", "", "missing")
	case !filepath.IsAbs(c.Path):
		return wrong("path", c.Path, "must be absolute")
	case len(c.SHA256) == 0 && !c.AllowUnpinned:
		return wrong("sha256", "", "missing; pin the program with the output of sha256sum "+c.Path+", or set allow_unpinned: true to run whatever is there")
	}
	for i, pin := range c.SHA256 {
		if b, err := hex.DecodeString(pin); err != nil || len(b) != 32 {
			return wrong(fmt.Sprintf("sha256[%d]", i), pin, "not a SHA-256 sum; use the 64 digits that sha256sum prints")
		}
	}
	return nil
}

// Program is a plugin's file as it is now.
type Program struct {
	Path   string // with links followed
	SHA256 string // in hexadecimal
	Pinned bool   // the sum is one of the config's
}

// Inspect looks at the file and starts nothing. After an error SHA256 is still
// told where it could be read.
func (c Config) Inspect() (p Program, err error) {
	if err := c.Validate(); err != nil {
		return p, err
	}
	if p.Path, err = process.Resolve(c.Path); err == nil {
		p.SHA256, err = process.Verify(p.Path, c.SHA256)
	}
	if err != nil {
		return p, fmt.Errorf("plugin %s: %w", c.Name, err)
	}
	p.Pinned = len(c.SHA256) > 0
	return p, nil
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		v  *time.Duration
		to time.Duration
	}{
		{&c.StartTimeout, 30 * time.Second},
		{&c.CallTimeout, time.Minute},
		{&c.SyncTimeout, 5 * time.Minute},
		{&c.Heartbeat, 10 * time.Second},
		{&c.RestartMin, 500 * time.Millisecond},
		{&c.RestartMax, time.Minute},
	} {
		if *d.v <= 0 {
			*d.v = d.to
		}
	}
	if c.RunDir == "" {
		c.RunDir = DefaultRunDir
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	pins := make([]string, len(c.SHA256))
	for i, pin := range c.SHA256 {
		pins[i] = strings.ToLower(pin)
	}
	c.SHA256 = pins
	return c
}
