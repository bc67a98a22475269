package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	hookName = "setup-vif-rules"
	// stockSuffix is put to the name of what was there before. The stock plugin
	// must stay in its folder: it imports what lies beside it.
	stockSuffix = ".stock"
	stockName   = "vmops" + stockSuffix
	program     = "vmops" // base name of this program's file
)

// places are where XAPI and xenopsd look, newest first.
var places = map[string][]string{
	"plugin": {"/etc/xapi.d/plugins/vmops"},
	"hook":   {"/usr/libexec/xenopsd/setup-vif-rules", "/usr/lib/xcp/lib/setup-vif-rules", "/opt/xensource/libexec/setup-vif-rules"},
}

const usage = `usage: vmops install plugin|hook [FILE]     take the place of the stock file, which stays beside it as FILE.stock
       vmops uninstall plugin|hook [FILE]   put the stock file back
       vmops status [plugin|hook [FILE]]    say what is in place
FILE is where XAPI (plugin) or xenopsd (hook) looks; without it, the first of the known places that is there.`

// operate is what people ask of this program.
func (env environment) operate(args []string) int {
	fail := func(err error) int {
		fmt.Fprintln(env.stderr, "vmops:", err)
		return 1
	}
	if len(args) == 1 && args[0] == "status" {
		code := 0
		for _, part := range []string{"plugin", "hook"} {
			code = max(code, env.operate([]string{"status", part}))
		}
		return code
	}
	if len(args) < 2 || len(args) > 3 || places[args[1]] == nil {
		fmt.Fprintln(env.stderr, usage)
		return 2
	}
	i := installer{place: placeOf(args[1], args[2:])}
	var err error
	switch args[0] {
	case "install":
		if i.binary, err = os.Executable(); err == nil {
			err = i.install()
		}
	case "uninstall":
		err = i.uninstall()
	case "status":
	default:
		fmt.Fprintln(env.stderr, usage)
		return 2
	}
	if err != nil {
		return fail(err)
	}
	state, err := i.state()
	if err != nil {
		return fail(err)
	}
	fmt.Fprintf(env.stdout, "%s: %s\n", i.place, state)
	return 0
}

func placeOf(part string, given []string) string {
	if len(given) > 0 {
		return given[0]
	}
	for _, p := range places[part] {
		if _, err := os.Lstat(p); err == nil {
			return p
		}
	}
	return places[part][0]
}

// installer puts this program where a stock file is, as a symbolic link: what
// updates the program updates it there, and a link says whose it is.
type installer struct{ place, binary string }

func (i installer) stock() string { return i.place + stockSuffix }

func (i installer) ours() (bool, error) {
	target, err := os.Readlink(i.place)
	switch {
	case err == nil:
		return filepath.Base(target) == program && !strings.HasSuffix(target, stockSuffix), nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	if info, e := os.Lstat(i.place); e == nil && info.Mode()&fs.ModeSymlink == 0 {
		return false, nil
	}
	return false, err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// install keeps the stock file under its second name before it loses the first,
// and at every moment there is one to run. A stock file that is newer than the
// one that was kept (a package was upgraded) takes its place.
func (i installer) install() error {
	ours, err := i.ours()
	if err != nil {
		return err
	}
	if ours {
		if target, _ := os.Readlink(i.place); target == i.binary {
			return nil
		}
	} else if exists(i.place) {
		temp := i.stock() + ".new"
		if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Link(i.place, temp); err != nil {
			return err
		}
		if err := os.Rename(temp, i.stock()); err != nil {
			return err
		}
		// Rename does nothing when both names are one file already.
		if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	temp := i.place + ".ringwall-tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(i.binary, temp); err != nil {
		return err
	}
	return os.Rename(temp, i.place)
}

// uninstall touches nothing that is not ours.
func (i installer) uninstall() error {
	ours, err := i.ours()
	switch {
	case err != nil:
		return err
	case !ours && exists(i.stock()) && exists(i.place):
		return fmt.Errorf("%s is not ours any more, and %s is kept beside it; compare the two and remove one", i.place, i.stock())
	case !ours:
		return nil
	case exists(i.stock()):
		return os.Rename(i.stock(), i.place)
	}
	return os.Remove(i.place)
}

func (i installer) state() (string, error) {
	ours, err := i.ours()
	if err != nil {
		return "", err
	}
	switch {
	case ours && exists(i.stock()):
		return "ringwall's; the stock file is kept as " + i.stock(), nil
	case ours:
		return "ringwall's; there was no stock file", nil
	case exists(i.place):
		return "the stock file", nil
	}
	return "not there", nil
}
