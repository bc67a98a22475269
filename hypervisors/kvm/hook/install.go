package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
)

// Names in libvirt's hooks folder.
const (
	// DefaultDir is that folder.
	DefaultDir = "/etc/libvirt/hooks"
	// DefaultBinary is where the package puts the hook's program.
	DefaultBinary = "/usr/sbin/" + Program
	// Program is the base name of the hook's binary. A link to a file of that
	// name is ours, anything else is somebody else's.
	Program = "ringwall-libvirt-hook"

	mainHook   = "qemu"
	dropIn     = "qemu.d/50-ringwall"
	wrapped    = "qemu.ringwall-wrapped" // the hook that was there before the wrapper
	configFile = "ringwall-libvirt-hook.json"
)

// dropInVersion is the first libvirt that runs the files of qemu.d.
const dropInVersion kvm.Version = 6_005_000

// Form is how the hook is installed.
type Form uint8

const (
	// NotInstalled: libvirt does not run it.
	NotInstalled Form = iota
	// DropIn is a file of its own beside other hooks.
	DropIn
	// Wrapper takes the place of the only hook there can be, and runs the one
	// that was there.
	Wrapper
)

func (f Form) String() string {
	return [...]string{"not installed", "drop-in", "wrapper"}[f]
}

// MarshalText makes a Form words in JSON and YAML.
func (f Form) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// FormFor is the form that a libvirt understands.
func FormFor(v kvm.Version) Form {
	if v >= dropInVersion {
		return DropIn
	}
	return Wrapper
}

// Installer puts the hook into libvirt's folder, as a symbolic link: whatever
// updates the binary updates the hook, and a link says whose it is.
//
// Under libvirtd's AppArmor profile only programs in /usr/bin and /usr/sbin run
// without its confinement.
type Installer struct {
	Dir    string // empty: DefaultDir
	Binary string // absolute path of the hook's program
	// DryRun tells what would be done, and does nothing.
	DryRun bool
}

// do changes something, unless this is a dry run.
func (i Installer) do(change func() error) error {
	if i.DryRun {
		return nil
	}
	return change()
}

// Report is what was done, a line each, for people.
type Report struct {
	Form    Form     `json:"form"`
	Changes []string `json:"changes"`
	// RestartLibvirt: libvirt looks for hooks when it starts, and there were none.
	RestartLibvirt bool `json:"restart_libvirt"`
}

func (r *Report) add(format string, args ...any) {
	r.Changes = append(r.Changes, fmt.Sprintf(format, args...))
}

func (i Installer) dir() string {
	if i.Dir == "" {
		return DefaultDir
	}
	return i.Dir
}

func (i Installer) path(name string) string { return filepath.Join(i.dir(), name) }

// Place is what the hook, started as self, finds in libvirt's folder: its config,
// and the hook that it has to run as well (empty when it wraps none).
func Place(self string) (config, next string) {
	dir := filepath.Dir(self)
	if filepath.Base(self) != mainHook {
		return filepath.Join(filepath.Dir(dir), configFile), ""
	}
	next = filepath.Join(dir, wrapped)
	if _, err := os.Lstat(next); err != nil {
		next = ""
	}
	return filepath.Join(dir, configFile), next
}

// Install makes libvirt of version v run the hook. Doing it again changes
// nothing, save what has changed. Somebody else's file is never written to or
// removed; at every moment libvirt finds the hooks that it found before.
func (i Installer) Install(v kvm.Version, c Config) (r Report, err error) {
	r.Form = FormFor(v)
	if filepath.Base(i.Binary) != Program || !filepath.IsAbs(i.Binary) {
		return r, fmt.Errorf("the hook's program %q must be an absolute path that ends in %s: %w", i.Binary, Program, core.ErrInvalid)
	}
	if info, err := os.Stat(i.Binary); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		//nolint:errorlint // err is nil where it is a file of another kind
		return r, fmt.Errorf("the hook's program %s is not an executable file (%v): %w", i.Binary, err, core.ErrNotFound)
	}
	r.RestartLibvirt = !i.anyHook()
	if err := i.do(func() error { return os.MkdirAll(i.dir(), 0o755) }); err != nil {
		return r, err
	}
	if err := i.writeConfig(c, &r); err != nil {
		return r, err
	}
	if r.Form == DropIn {
		if err := i.installDropIn(&r); err != nil {
			return r, err
		}
		return r, i.unwrap(&r) // libvirt has been upgraded since
	}
	if err := i.wrap(&r); err != nil {
		return r, err
	}
	return r, i.removeOurs(dropIn, &r)
}

// Config is what the installed hook reads, or DefaultConfig.
func (i Installer) Config() (Config, error) { return ReadConfig(i.path(configFile)) }

// Uninstall takes the hook out and puts back what was wrapped.
func (i Installer) Uninstall() (r Report, err error) {
	if err := i.removeOurs(dropIn, &r); err != nil {
		return r, err
	}
	if err := i.unwrap(&r); err != nil {
		return r, err
	}
	if _, err := os.Lstat(i.path(configFile)); errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err := i.do(func() error { return os.Remove(i.path(configFile)) }); err != nil {
		return r, err
	}
	r.add("removed %s", i.path(configFile))
	return r, nil
}

// Status says how libvirt runs the hook now.
func (i Installer) Status() (Form, error) {
	for _, f := range []struct {
		name string
		form Form
	}{{dropIn, DropIn}, {mainHook, Wrapper}} {
		switch owner, err := i.owner(f.name); {
		case err != nil:
			return NotInstalled, err
		case owner != ours:
			continue
		}
		if _, err := os.Stat(i.path(f.name)); err != nil {
			return f.form, fmt.Errorf("%s points to a program that is gone; install ringwall again, or remove the hook (ringwall uninstall libvirt-hook): %w", i.path(f.name), core.ErrNotFound)
		}
		return f.form, nil
	}
	return NotInstalled, nil
}

func (i Installer) writeConfig(c Config, r *Report) error {
	have, err := ReadConfig(i.path(configFile))
	if _, missing := os.Stat(i.path(configFile)); err == nil && missing == nil && have == c {
		return nil
	}
	if err := c.Validate(); err != nil {
		return err
	}
	if err := i.do(func() error { return c.write(i.path(configFile)) }); err != nil {
		return err
	}
	r.add("wrote %s", i.path(configFile))
	return nil
}

func (i Installer) installDropIn(r *Report) error {
	if err := i.do(func() error { return os.MkdirAll(filepath.Dir(i.path(dropIn)), 0o755) }); err != nil {
		return err
	}
	switch owner, err := i.owner(dropIn); {
	case err != nil:
		return err
	case owner == theirs:
		return fmt.Errorf("%s is there and not ours; move it away: %w", i.path(dropIn), core.ErrConflict)
	}
	return i.link(dropIn, r)
}

// wrap moves a foreign hook aside and takes its place.
func (i Installer) wrap(r *Report) error {
	owner, err := i.owner(mainHook)
	if err != nil {
		return err
	}
	if owner == theirs {
		if err := i.keep(r); err != nil {
			return err
		}
	}
	return i.link(mainHook, r)
}

// keep gives the foreign hook its second name before it loses the first. If it
// took our place back (a package was upgraded), the older one is kept as well.
func (i Installer) keep(r *Report) error {
	from, to := i.path(mainHook), i.path(wrapped)
	now, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if before, err := os.Lstat(to); err == nil {
		if os.SameFile(now, before) {
			return nil // an installation that was cut short
		}
		older, err := freeName(to)
		if err != nil {
			return err
		}
		if err := i.do(func() error { return os.Rename(to, older) }); err != nil {
			return err
		}
		r.add("kept an older %s as %s", to, older)
	}
	// A hard link, also of a symbolic link (Link does not follow it).
	if err := i.do(func() error { return os.Link(from, to) }); err != nil {
		return err
	}
	r.add("the hook %s is now run by ours, as %s", from, to)
	return nil
}

func freeName(path string) (string, error) {
	for n := range 1000 {
		name := fmt.Sprintf("%s.%d", path, n+1)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
	}
	return "", fmt.Errorf("a thousand old versions of %s; remove some: %w", path, core.ErrConflict)
}

// unwrap puts the wrapped hook back over our link in one step.
func (i Installer) unwrap(r *Report) error {
	owner, err := i.owner(mainHook)
	if err != nil || owner != ours {
		return err
	}
	if _, err := os.Lstat(i.path(wrapped)); errors.Is(err, fs.ErrNotExist) {
		return i.removeOurs(mainHook, r)
	}
	if err := i.do(func() error { return os.Rename(i.path(wrapped), i.path(mainHook)) }); err != nil {
		return err
	}
	r.add("put %s back", i.path(mainHook))
	return nil
}

func (i Installer) removeOurs(name string, r *Report) error {
	owner, err := i.owner(name)
	if err != nil || owner != ours {
		return err
	}
	if err := i.do(func() error { return os.Remove(i.path(name)) }); err != nil {
		return err
	}
	r.add("removed %s", i.path(name))
	return nil
}

// link points name to the binary, in one step.
func (i Installer) link(name string, r *Report) error {
	path := i.path(name)
	if target, err := os.Readlink(path); err == nil && target == i.Binary {
		return nil
	}
	err := i.do(func() error {
		temp := path + ".ringwall-tmp"
		if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(i.Binary, temp); err != nil {
			return err
		}
		return os.Rename(temp, path)
	})
	if err != nil {
		return err
	}
	r.add("linked %s to %s", path, i.Binary)
	return nil
}

type owner uint8

const (
	nobody owner = iota
	ours
	theirs
)

func (i Installer) owner(name string) (owner, error) {
	info, err := os.Lstat(i.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nobody, nil
	case err != nil:
		return nobody, err
	case info.Mode()&fs.ModeSymlink == 0:
		return theirs, nil
	}
	target, err := os.Readlink(i.path(name))
	if err == nil && filepath.Base(target) == Program {
		return ours, nil
	}
	return theirs, err
}

// Check is a line of doctor.
func (i Installer) Check() core.Check {
	form, err := i.Status()
	switch {
	case err != nil:
		return core.Check{Name: "libvirt-hook", Status: core.StatusError, Summary: "the libvirt hook does not work",
			Evidence: err.Error(), Fix: "ringwall install libvirt-hook"}
	case form == NotInstalled:
		return core.Check{Name: "libvirt-hook", Status: core.StatusWarning,
			Summary:  "no libvirt hook: a VM runs with closed ports until the agent has seen it start",
			Evidence: "neither " + i.path(dropIn) + " nor " + i.path(mainHook) + " is ours",
			Fix:      "ringwall install libvirt-hook"}
	}
	return core.Check{Name: "libvirt-hook", Summary: "libvirt runs the hook (" + form.String() + ")"}
}

// anyHook says whether libvirt found a qemu hook when it started.
func (i Installer) anyHook() bool {
	if _, err := os.Stat(i.path(mainHook)); err == nil {
		return true
	}
	files, _ := filepath.Glob(i.path("qemu.d/*"))
	return len(files) > 0
}
