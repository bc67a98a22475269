package hook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ringwall/ringwall/core"
)

// Config of the hook.
type Config struct {
	Socket          string // of the agent
	OnFailure       OnFailure
	Timeout         time.Duration // for the agent's answer, while the VM waits
	CloudStackNames bool          // as the adapter's setting cloudstack_names
}

// OnFailure says what becomes of a VM whose policy cannot be put in force.
type OnFailure string

const (
	// Closed: it starts and its ports pass nothing until the agent is back.
	Closed OnFailure = "closed"
	// Refuse: it does not start.
	Refuse OnFailure = "refuse"
)

// DefaultConfig is used where there is no file.
func DefaultConfig() Config {
	return Config{Socket: "/run/ringwall/ringwall.sock", OnFailure: Closed, Timeout: 10 * time.Second}
}

// configJSON is the file.
type configJSON struct {
	Socket          string    `json:"socket"`
	OnFailure       OnFailure `json:"on_failure"`
	Timeout         string    `json:"timeout"`
	CloudStackNames bool      `json:"cloudstack_names"`
}

// ReadConfig reads what the installer left beside the hook: the hook runs for
// every phase of every VM, and before a VM, so it reads one small file and not
// the fleet's. No file is DefaultConfig. An error comes with the
// default: a broken file must not keep every VM of the host from starting, and
// closed ports are safe.
func ReadConfig(path string) (Config, error) {
	c := DefaultConfig()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	given, err := decodeConfig(b)
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return given, nil
}

func decodeConfig(b []byte) (Config, error) {
	c := DefaultConfig()
	j := configJSON{c.Socket, c.OnFailure, c.Timeout.String(), c.CloudStackNames}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return Config{}, fmt.Errorf("%w: %w", err, core.ErrInvalid)
	}
	timeout, err := time.ParseDuration(j.Timeout)
	if err != nil {
		return Config{}, &core.FieldError{Path: "timeout", Value: j.Timeout, Reason: "not a duration; use a form like 10s"}
	}
	c = Config{Socket: j.Socket, OnFailure: j.OnFailure, Timeout: timeout, CloudStackNames: j.CloudStackNames}
	return c, c.Validate()
}

// Validate checks the values.
func (c Config) Validate() error {
	switch {
	case !filepath.IsAbs(c.Socket):
		return &core.FieldError{Path: "socket", Value: c.Socket, Reason: "not an absolute path"}
	case c.OnFailure != Closed && c.OnFailure != Refuse:
		return &core.FieldError{Path: "on_failure", Value: string(c.OnFailure), Reason: "use closed or refuse"}
	case c.Timeout <= 0 || c.Timeout > time.Minute:
		return &core.FieldError{Path: "timeout", Value: c.Timeout.String(), Reason: "use more than 0 and at most 1m; the VM waits for it"}
	}
	return nil
}

// write replaces the file in one step.
func (c Config) write(path string) error {
	if err := c.Validate(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(configJSON{c.Socket, c.OnFailure, c.Timeout.String(), c.CloudStackNames}, "", "  ")
	if err != nil {
		return err
	}
	temp := path + ".tmp"
	if err := os.WriteFile(temp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
