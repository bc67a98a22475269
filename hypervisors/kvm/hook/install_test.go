package hook_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

const (
	old    kvm.Version = 6_004_000
	recent kvm.Version = 6_005_000
)

// etc is a folder to install in.
type etc struct {
	t *testing.T
	hook.Installer
}

func newEtc(t *testing.T) etc {
	t.Helper()
	dir := t.TempDir()
	e := etc{t, hook.Installer{Dir: filepath.Join(dir, "hooks"), Binary: filepath.Join(dir, hook.Program)}}
	if err := os.MkdirAll(e.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	e.write(e.Binary, "ours")
	return e
}

func (e etc) write(path, text string) {
	e.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		e.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		e.t.Fatal(err)
	}
}

// files is what is in the hooks folder: content, links followed.
func (e etc) files() map[string]string {
	e.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(e.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(e.Dir, path)
		if name == "ringwall-libvirt-hook.json" {
			return nil // looked at by its own
		}
		b, err := os.ReadFile(path)
		out[name] = string(b)
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return out
}

func (e etc) expect(what string, want map[string]string) {
	e.t.Helper()
	if d := cmp.Diff(want, e.files()); d != "" {
		e.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// config is the file that the installed hook reads, whatever its form.
func (e etc) config() string {
	e.t.Helper()
	one, _ := hook.Place(filepath.Join(e.Dir, "qemu"))
	other, _ := hook.Place(filepath.Join(e.Dir, "qemu.d", "50-ringwall"))
	if one != other {
		e.t.Errorf("the forms disagree on the config file: %s, %s", one, other)
	}
	return one
}

func (e etc) install(v kvm.Version) hook.Report {
	e.t.Helper()
	r, err := e.Install(v, hook.DefaultConfig())
	if err != nil {
		e.t.Fatal(err)
	}
	again, err := e.Install(v, hook.DefaultConfig())
	if err != nil || len(again.Changes) > 0 {
		e.t.Errorf("the second time: %v, %v; want nothing to do", again.Changes, err)
	}
	if form, err := e.Status(); err != nil || form != r.Form || form != hook.FormFor(v) {
		e.t.Errorf("status %v, %v; installed as %v", form, err, r.Form)
	}
	return r
}

func (e etc) uninstall() {
	e.t.Helper()
	for _, time := range []string{"first", "second"} {
		r, err := e.Uninstall()
		if err != nil || time == "second" && len(r.Changes) > 0 {
			e.t.Errorf("uninstalled the %s time: %v, %v", time, r.Changes, err)
		}
	}
	if form, err := e.Status(); err != nil || form != hook.NotInstalled {
		e.t.Errorf("status after uninstall: %v, %v", form, err)
	}
	if _, err := os.Stat(e.config()); !errors.Is(err, fs.ErrNotExist) {
		e.t.Errorf("the config file is still there: %v", err)
	}
}

func TestInstallFromNothing(t *testing.T) {
	for v, name := range map[kvm.Version]string{old: "qemu", recent: "qemu.d/50-ringwall", 9_000_000: "qemu.d/50-ringwall"} {
		e := newEtc(t)
		if r := e.install(v); !r.RestartLibvirt {
			t.Errorf("%v: no word that libvirt must be restarted to see its first hook", v)
		}
		e.expect("installed", map[string]string{name: "ours"})
		if c := e.Check(); c.Status != core.StatusOK {
			t.Errorf("check %+v", c)
		}
		e.uninstall()
		e.expect("uninstalled", map[string]string{})
		if c := e.Check(); c.Status != core.StatusWarning {
			t.Errorf("check %+v", c)
		}
	}
}

func TestInstallBesideOthers(t *testing.T) {
	others := map[string]string{"qemu": "cloudstack's", "qemu.d/10-other": "other's", "network": "net"}
	for v, want := range map[kvm.Version]map[string]string{
		old:    {"qemu": "ours", "qemu.ringwall-wrapped": "cloudstack's", "qemu.d/10-other": "other's", "network": "net"},
		recent: {"qemu": "cloudstack's", "qemu.d/50-ringwall": "ours", "qemu.d/10-other": "other's", "network": "net"},
	} {
		e := newEtc(t)
		for name, text := range others {
			e.write(filepath.Join(e.Dir, name), text)
		}
		if r := e.install(v); r.RestartLibvirt {
			t.Errorf("%v: libvirt has hooks already, and need not be restarted", v)
		}
		e.expect("installed", want)
		_, next := hook.Place(filepath.Join(e.Dir, "qemu"))
		if (next != "") != (v == old) {
			t.Errorf("%v: wraps %q", v, next)
		}
		e.uninstall()
		e.expect("uninstalled", others)
	}
}

func TestAForeignHookThatIsALink(t *testing.T) {
	e := newEtc(t)
	target := filepath.Join(t.TempDir(), "theirs")
	e.write(target, "theirs")
	if err := os.Symlink(target, filepath.Join(e.Dir, "qemu")); err != nil {
		t.Fatal(err)
	}
	e.install(old)
	e.expect("installed", map[string]string{"qemu": "ours", "qemu.ringwall-wrapped": "theirs"})
	e.uninstall()
	if got, err := os.Readlink(filepath.Join(e.Dir, "qemu")); err != nil || got != target {
		t.Errorf("link to %q, %v; want %q", got, err, target)
	}
}

// libvirt is upgraded past 6.5: the wrapper becomes a drop-in file.
func TestWrapperBecomesDropInAndBack(t *testing.T) {
	e := newEtc(t)
	e.write(filepath.Join(e.Dir, "qemu"), "theirs")
	e.install(old)
	e.install(recent)
	e.expect("upgraded", map[string]string{"qemu": "theirs", "qemu.d/50-ringwall": "ours"})
	e.install(old)
	e.expect("and back", map[string]string{"qemu": "ours", "qemu.ringwall-wrapped": "theirs"})
}

// A package of theirs was upgraded and put its hook where our wrapper was.
func TestTheirHookComesBackOverTheWrapper(t *testing.T) {
	e := newEtc(t)
	e.write(filepath.Join(e.Dir, "qemu"), "theirs 1")
	e.install(old)
	if err := os.Remove(filepath.Join(e.Dir, "qemu")); err != nil {
		t.Fatal(err)
	}
	e.write(filepath.Join(e.Dir, "qemu"), "theirs 2")
	if form, err := e.Status(); form != hook.NotInstalled || err != nil {
		t.Errorf("status %v, %v", form, err)
	}
	e.install(old)
	e.expect("installed again", map[string]string{"qemu": "ours", "qemu.ringwall-wrapped": "theirs 2", "qemu.ringwall-wrapped.1": "theirs 1"})
	e.uninstall()
	e.expect("uninstalled", map[string]string{"qemu": "theirs 2", "qemu.ringwall-wrapped.1": "theirs 1"})
}

func TestAnInstallationThatWasCutShort(t *testing.T) {
	e := newEtc(t)
	e.write(filepath.Join(e.Dir, "qemu"), "theirs")
	if err := os.Link(filepath.Join(e.Dir, "qemu"), filepath.Join(e.Dir, "qemu.ringwall-wrapped")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(e.Dir, "qemu.ringwall-tmp")); err != nil {
		t.Fatal(err)
	}
	e.install(old)
	e.expect("installed", map[string]string{"qemu": "ours", "qemu.ringwall-wrapped": "theirs"})
}

func TestInstallFollowsTheBinaryAndTheConfig(t *testing.T) {
	e := newEtc(t)
	e.install(recent)
	e.Binary = filepath.Join(t.TempDir(), hook.Program)
	e.write(e.Binary, "ours, elsewhere")
	e.install(recent)
	e.expect("moved", map[string]string{"qemu.d/50-ringwall": "ours, elsewhere"})
	c := hook.DefaultConfig()
	c.OnFailure = hook.Refuse
	if _, err := e.Install(recent, c); err != nil {
		t.Fatal(err)
	}
	if got, err := hook.ReadConfig(e.config()); err != nil || got != c {
		t.Errorf("config %+v, %v", got, err)
	}
}

func TestInstallRefuses(t *testing.T) {
	e := newEtc(t)
	e.write(filepath.Join(e.Dir, "qemu.d/50-ringwall"), "somebody's")
	if _, err := e.Install(recent, hook.DefaultConfig()); !errors.Is(err, core.ErrConflict) || !strings.Contains(err.Error(), "50-ringwall") {
		t.Errorf("a file of that name: %v", err)
	}
	e.expect("after it", map[string]string{"qemu.d/50-ringwall": "somebody's"})
	for _, binary := range []string{"", "ringwall-libvirt-hook", filepath.Join(e.Dir, "other"), filepath.Join(e.Dir, hook.Program)} {
		bad := e
		bad.Binary = binary
		if _, err := bad.Install(old, hook.DefaultConfig()); err == nil {
			t.Errorf("program %q was taken", binary)
		}
	}
	if _, err := e.Install(old, hook.Config{}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("an empty config: %v", err)
	}
}

func TestStatusShowsALinkToNothing(t *testing.T) {
	e := newEtc(t)
	e.install(recent)
	if err := os.Remove(e.Binary); err != nil {
		t.Fatal(err)
	}
	if form, err := e.Status(); form != hook.DropIn || !errors.Is(err, core.ErrNotFound) {
		t.Errorf("status %v, %v", form, err)
	}
	if c := e.Check(); c.Status != core.StatusError {
		t.Errorf("check %+v", c)
	}
}

// A dry run says what the real one then does, and does none of it.
func TestDryRun(t *testing.T) {
	for name, v := range map[string]kvm.Version{"drop-in": recent, "wrapper": old} {
		e := newEtc(t)
		e.write(filepath.Join(e.Dir, "qemu"), "theirs")
		step := func(what string, fn func(hook.Installer) (hook.Report, error)) {
			t.Helper()
			dry := e.Installer
			dry.DryRun = true
			before := e.files()
			said, err := fn(dry)
			if err != nil {
				t.Fatal(name, what, err)
			}
			e.expect(name+": dry "+what, before)
			done, err := fn(e.Installer)
			if err != nil {
				t.Fatal(name, what, err)
			}
			if d := cmp.Diff(done, said); d != "" || len(done.Changes) == 0 {
				t.Errorf("%s, %s: (-done +said):\n%s", name, what, d)
			}
		}
		step("install", func(i hook.Installer) (hook.Report, error) { return i.Install(v, hook.DefaultConfig()) })
		step("uninstall", hook.Installer.Uninstall)
		e.expect(name+": at the end", map[string]string{"qemu": "theirs"})
	}
}
