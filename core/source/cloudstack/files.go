package cloudstack

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// files are those of the stock script: a rule log for each VM, and its
// secondary addresses. Nothing here reads them for its own sake; the stock
// script does when it comes back, and operators do.
type files struct{ dir string }

func (f files) prepare() error {
	if f.dir == "" {
		return nil
	}
	return os.MkdirAll(f.dir, 0o755)
}

func (f files) path(vm, ext string) string { return filepath.Join(f.dir, vm+ext) }

// write puts a VM's files in place, whole or not at all.
func (f files) write(vm string, l RuleLog, nics []nic) error {
	if f.dir == "" {
		return nil
	}
	errs := []error{f.put(f.path(vm, ".log"), l.String()+"\n")}
	var secondary strings.Builder
	for _, n := range nics {
		for _, p := range n.Secondary {
			secondary.WriteString(textOf(p) + ";")
		}
	}
	if secondary.Len() > 0 {
		errs = append(errs, f.put(f.path(vm, ".ip"), fmt.Sprintf("%s,%s,%s\n", vm, secondary.String(), l.VMID)))
	}
	return errors.Join(errs...)
}

func textOf(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// correct puts the log right where it says something else: rules may have been
// lost, or come into force, since it was written.
func (f files) correct(vm string, l RuleLog) error {
	if f.dir == "" {
		return nil
	}
	if b, err := os.ReadFile(f.path(vm, ".log")); err == nil && string(b) == l.String()+"\n" {
		return nil
	}
	return f.put(f.path(vm, ".log"), l.String()+"\n")
}

func (f files) put(path, text string) error {
	if err := f.prepare(); err != nil {
		return err
	}
	t, err := os.CreateTemp(f.dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = t.WriteString(text)
	err = errors.Join(err, t.Chmod(0o644), t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(t.Name()))
	}
	return nil
}

// read gives the log of a VM.
func (f files) read(vm string) (RuleLog, error) {
	b, err := os.ReadFile(f.path(vm, ".log"))
	if err != nil {
		return RuleLog{}, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return ParseRuleLog(line)
}

func (f files) remove(vm string) error {
	if f.dir == "" {
		return nil
	}
	var errs []error
	for _, ext := range []string{".log", ".ip"} {
		if err := os.Remove(f.path(vm, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// device says whether an interface of that name is there.
func (files) device(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil && name != ""
}
