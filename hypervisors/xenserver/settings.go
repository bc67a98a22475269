package xenserver

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// Name is the adapter's name in config.
const Name = "xenserver"

// ConnectionSettings is the part of a settings schema that says how to reach
// XAPI. The adapter and the remote backend have it in common.
func ConnectionSettings() []core.SettingInfo {
	return []core.SettingInfo{
		{Name: "hosts", Type: "strings", Help: "the pool's hosts over HTTPS: name, name:port; none = this host's own socket"},
		{Name: "socket", Type: "string", Default: xapi.LocalSocket, Help: "XAPI's unix socket in dom0, used when hosts is empty"},
		{Name: "user", Type: "string", Default: "root", Help: "who logs in at hosts"},
		{Name: "password_file", Type: "string", Help: "a file with the password alone, readable by its owner only"},
		{Name: "pins", Type: "strings", Help: "SHA-256 sums of the hosts' certificates, in hex; with pins nothing else is verified"},
		{Name: "ca_file", Type: "string", Help: "certificates to verify hosts by, PEM; none = the system's"},
		{Name: "timeout", Type: "duration", Default: "30s", Help: "how long one call to XAPI may take"},
	}
}

// ReadConnection reads those settings; path is where they are in the config
// (hypervisor.settings). It gives back the settings that are not among them.
func ReadConnection(path string, s core.Settings) (xapi.Options, core.Settings, error) {
	r := NewReader(path, s)
	o := xapi.Options{
		Hosts:   r.Strings("hosts"),
		Socket:  r.String("socket", xapi.LocalSocket),
		User:    r.String("user", "root"),
		Pins:    r.Strings("pins"),
		CAFile:  r.String("ca_file", ""),
		Timeout: r.Duration("timeout", 30*time.Second),
	}
	file := r.String("password_file", "")
	if r.Err() != nil {
		return o, nil, r.Err()
	}
	if len(o.Hosts) == 0 {
		return o, r.rest, nil
	}
	o.Socket = ""
	var err error
	if o.Password, err = readPassword(path+".password_file", file); err != nil {
		return o, nil, err
	}
	if _, err := xapi.New(o); err != nil {
		return o, nil, &core.FieldError{Path: path, Reason: err.Error()}
	}
	return o, r.rest, nil
}

func readPassword(path, file string) (xapi.Secret, error) {
	if file == "" {
		return "", &core.FieldError{Path: path, Reason: "missing; hosts are logged in to with a password"}
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", &core.FieldError{Path: path, Value: file, Reason: err.Error()}
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", &core.FieldError{Path: path, Value: file, Reason: "others may read it; chmod 600 " + file}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", &core.FieldError{Path: path, Value: file, Reason: err.Error()}
	}
	return xapi.Secret(strings.TrimRight(string(b), "\r\n")), nil
}

// Reader takes settings apart. It keeps the first error.
type Reader struct {
	path string
	rest core.Settings
	err  error
}

// NewReader reads a copy of s.
func NewReader(path string, s core.Settings) *Reader {
	rest := core.Settings{}
	for k, v := range s {
		rest[k] = v
	}
	return &Reader{path: path, rest: rest}
}

func (r *Reader) take(name string) (any, bool) {
	v, ok := r.rest[name]
	delete(r.rest, name)
	return v, ok && v != nil
}

func (r *Reader) fault(name string, v any, reason string) {
	if r.err == nil {
		r.err = &core.FieldError{Path: r.path + "." + name, Value: fmt.Sprint(v), Reason: reason}
	}
}

// String is the setting, or def when it is not there.
func (r *Reader) String(name, def string) string {
	v, ok := r.take(name)
	if !ok {
		return def
	}
	s, ok := v.(string)
	if !ok {
		r.fault(name, v, "not a text")
	}
	return s
}

// Strings is a list.
func (r *Reader) Strings(name string) (out []string) {
	v, ok := r.take(name)
	if !ok {
		return nil
	}
	switch v := v.(type) {
	case []string:
		return slices.Clone(v)
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok || s == "" {
				r.fault(name, v, "not a list of texts")
			}
			out = append(out, s)
		}
		return out
	}
	r.fault(name, v, "not a list")
	return nil
}

// Bool is true or false.
func (r *Reader) Bool(name string) bool {
	v, ok := r.take(name)
	if !ok {
		return false
	}
	b, ok := v.(bool)
	if !ok {
		r.fault(name, v, "not true or false")
	}
	return b
}

// Duration is positive.
func (r *Reader) Duration(name string, def time.Duration) time.Duration {
	v, ok := r.take(name)
	if !ok {
		return def
	}
	s, _ := v.(string)
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		r.fault(name, v, "not a duration; use a form like 30s")
	}
	return d
}

// Err is the first error.
func (r *Reader) Err() error { return r.err }

// Done is Err, or the error about a setting that nobody took.
func (r *Reader) Done(what string) error {
	for name, v := range r.rest {
		r.fault(name, v, "no such setting; "+what+" does not know it")
	}
	return r.err
}
