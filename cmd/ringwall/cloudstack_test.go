package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/core"
)

// scriptHost is a folder with CloudStack's script, our command and a
// dpkg-divert that notes what it is told.
func scriptHost(t *testing.T) (p scriptPlace, told func() string) {
	t.Helper()
	dir := t.TempDir()
	p = scriptPlace{script: filepath.Join(dir, "security_group.py"), command: filepath.Join(dir, "security_group"), divert: filepath.Join(dir, "dpkg-divert")}
	for path, text := range map[string]string{p.script: "stock 1", p.command: "ours", p.divert: "#!/bin/sh\necho \"$@\" >>" + dir + "/told\n"} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p, func() string {
		b, _ := os.ReadFile(dir + "/told")
		return strings.ReplaceAll(string(b), dir+"/", "")
	}
}

func contents(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s is %q, %v; want %q", filepath.Base(path), b, err, want)
	}
}

func TestScriptPlace(t *testing.T) {
	p, told := scriptHost(t)
	for range 2 { // the second time changes nothing
		if err := errors.Join(p.check(), p.install(t.Context())); err != nil {
			t.Fatal(err)
		}
		contents(t, p.script, "ours")
		contents(t, p.stock(), "stock 1")
	}
	if err := p.uninstall(t.Context()); err != nil {
		t.Fatal(err)
	}
	contents(t, p.script, "stock 1")
	want := "--local --no-rename --divert security_group.py.stock --add security_group.py\n--local --no-rename --divert security_group.py.stock --remove security_group.py\n"
	if got := told(); got != want {
		t.Errorf("dpkg-divert was told\n%s", got)
	}
}

// TestScriptUpgraded: where no package manager is told, an upgrade puts a newer
// script in place of the link; installing again keeps that one.
func TestScriptUpgraded(t *testing.T) {
	p, _ := scriptHost(t)
	p.divert = ""
	if err := p.install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(p.script), os.WriteFile(p.script, []byte("stock 2"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if p.installed() {
		t.Error("it is taken for ours")
	}
	if err := errors.Join(p.check(), p.install(t.Context())); err != nil {
		t.Fatal(err)
	}
	contents(t, p.script, "ours")
	contents(t, p.stock(), "stock 2")
}

func TestScriptRefused(t *testing.T) {
	p, _ := scriptHost(t)
	for name, c := range map[string]struct {
		spoil func() error
		want  error
	}{
		"a foreign link": {func() error { return errors.Join(os.Remove(p.script), os.Symlink("/bin/true", p.script)) }, core.ErrConflict},
		"no script":      {func() error { return os.Remove(p.script) }, core.ErrInvalid},
		"no program":     {func() error { return os.Chmod(p.command, 0o644) }, core.ErrInvalid},
	} {
		p, _ = scriptHost(t)
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		if err := p.check(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p, _ = scriptHost(t)
	p.divert = "/bin/false"
	if err := p.install(t.Context()); err == nil {
		t.Error("dpkg-divert failed, and it went on")
	}
	contents(t, p.script, "stock 1")
	if p.uninstall(t.Context()) == nil {
		t.Error("dpkg-divert failed, and nobody was told")
	}
}
