package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// scriptPlace is where CloudStack's agent looks for its script. At no moment is
// there nothing: the agent refuses to start without it.
type scriptPlace struct {
	script, command string
	divert          string // path of dpkg-divert; empty = the package is not told
}

// stock is the name that the script is kept under.
func (p scriptPlace) stock() string { return p.script + ".stock" }

// installed says whether the link is in place.
func (p scriptPlace) installed() bool {
	to, err := os.Readlink(p.script)
	return err == nil && to == p.command
}

// check makes sure that there is something to put in place, and a place.
func (p scriptPlace) check() error {
	info, err := os.Stat(p.command)
	switch {
	case err != nil:
		return fmt.Errorf("cloudstack.command: %w", err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return &core.FieldError{Path: "cloudstack.command", Value: p.command, Reason: "not a program"}
	case p.installed():
		return nil
	}
	info, err = os.Lstat(p.script)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &core.FieldError{Path: "cloudstack.script", Value: p.script, Reason: "not there; is CloudStack's agent installed? Say where its script is"}
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is neither CloudStack's script nor ours; move it away: %w", p.script, core.ErrConflict)
	}
	return nil
}

// install keeps the script and puts the link in its place, in one step. A
// script that a package upgrade has put back is kept in the older one's place.
func (p scriptPlace) install(ctx context.Context) error {
	if p.installed() {
		return nil
	}
	if err := p.tell(ctx, "--add"); err != nil {
		return err
	}
	was, err := os.ReadFile(p.script)
	if err != nil {
		return err
	}
	info, err := os.Stat(p.script)
	if err != nil {
		return err
	}
	if err := replace(p.stock(), func(path string) error { return os.WriteFile(path, was, info.Mode().Perm()) }); err != nil {
		return err
	}
	if kept, err := os.ReadFile(p.stock()); err != nil || !bytes.Equal(kept, was) {
		return errors.Join(fmt.Errorf("%s is not a copy of %s; nothing was put in its place", p.stock(), p.script), err)
	}
	return replace(p.script, func(path string) error { return os.Symlink(p.command, path) })
}

// uninstall puts the script back.
func (p scriptPlace) uninstall(ctx context.Context) error {
	if !p.installed() { // an upgrade may have done it
		if info, err := os.Lstat(p.script); err != nil || !info.Mode().IsRegular() {
			return errors.Join(fmt.Errorf("%s is not ours, and no script: %w", p.script, core.ErrConflict), err)
		}
		return p.tell(ctx, "--remove")
	}
	if err := os.Rename(p.stock(), p.script); err != nil {
		return err
	}
	return p.tell(ctx, "--remove")
}

// tell lets the package manager know that the script is under another name, so
// that upgrades go there. The file is not moved by it: the script would not be
// there for a moment.
func (p scriptPlace) tell(ctx context.Context, action string) error {
	if p.divert == "" {
		return nil
	}
	out, err := exec.CommandContext(ctx, p.divert, "--local", "--no-rename", "--divert", p.stock(), action, p.script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("dpkg-divert: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// replace makes a file aside and moves it to path.
func replace(path string, make func(string) error) error {
	aside := filepath.Join(filepath.Dir(path), ".ringwall-"+filepath.Base(path))
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := make(aside); err != nil {
		return err
	}
	return os.Rename(aside, path)
}

// findDivert looks for dpkg-divert in $PATH.
func findDivert(environ []string) string {
	for _, e := range environ {
		path, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(path) {
			file := filepath.Join(dir, "dpkg-divert")
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
				return file
			}
		}
	}
	return ""
}
