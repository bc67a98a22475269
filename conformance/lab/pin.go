package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	netnsDir = "/run/netns"
	// ledgerDir records which process pinned which name, because a pin, alone
	// of all that the lab makes, outlives a killed process. The next pin
	// sweeps what the dead left.
	ledgerDir = "/run/ringwall-lab"
)

// pin is a namespace made visible in /run/netns, the way ip-netns(8) does it.
type pin struct{ name, ledger string }

// pinNamespace makes the namespace held by fd visible under name.
func pinNamespace(fd int, name string) (*pin, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/@\n") {
		return nil, fmt.Errorf("%q is no file name; %s needs one", name, netnsDir)
	}
	if err := SweepPins(); err != nil {
		return nil, err
	}
	if err := prepareNetnsDir(); err != nil {
		return nil, err
	}
	p := &pin{name: name, ledger: filepath.Join(ledgerDir, ledgerName(os.Getpid(), startTime(os.Getpid()), name))}
	f, err := os.OpenFile(filepath.Join(netnsDir, name), os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return nil, fmt.Errorf("namespace name %s is taken: %w", name, err)
	}
	f.Close()
	if err = p.record(); err == nil {
		err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), filepath.Join(netnsDir, name), "", unix.MS_BIND, "")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind %s/%s: %w", netnsDir, name, err), p.remove())
	}
	return p, nil
}

// prepareNetnsDir makes /run/netns what ip-netns(8) makes of it: a shared mount
// point. Were ours an ordinary folder, a later `ip netns add` would mount over
// it, and our names could not be removed any more (EBUSY).
func prepareNetnsDir() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err = unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		return fmt.Errorf("prepare %s: %w", netnsDir, err)
	}
	return nil
}

// record writes the ledger entry. Another process may remove the folder, found
// empty, between the two steps: then once more.
func (p *pin) record() (err error) {
	for range 10 {
		if err = os.MkdirAll(ledgerDir, 0o755); err != nil {
			return err
		}
		if err = os.WriteFile(p.ledger, nil, 0o644); !os.IsNotExist(err) {
			return err
		}
	}
	return err
}

func (p *pin) remove() error {
	path := filepath.Join(netnsDir, p.name)
	var err error
	for err == nil { // until nothing is mounted there
		err = unix.Unmount(path, unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if e := os.Remove(path); e != nil && !os.IsNotExist(e) {
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("remove namespace name %s: %w", p.name, err)
	}
	if e := os.Remove(p.ledger); e != nil && !os.IsNotExist(e) {
		return e
	}
	os.Remove(ledgerDir) // only when empty
	return nil
}

// SweepPins removes the names in /run/netns that a lab of a process now dead
// left there, and nothing else.
func SweepPins() error {
	entries, err := os.ReadDir(ledgerDir)
	if os.IsNotExist(err) {
		return nil
	}
	for _, e := range entries {
		pid, started, name, ok := parseLedgerName(e.Name())
		if !ok || startTime(pid) == started {
			continue
		}
		p := pin{name: name, ledger: filepath.Join(ledgerDir, e.Name())}
		err = errors.Join(err, p.remove())
	}
	return err
}

// ledgerName identifies the owner by pid and start time: pids come again.
func ledgerName(pid int, started, name string) string {
	return fmt.Sprintf("%d@%s@%s", pid, started, name)
}

func parseLedgerName(s string) (pid int, started, name string, ok bool) {
	parts := strings.SplitN(s, "@", 3)
	if len(parts) != 3 {
		return 0, "", "", false
	}
	pid, err := strconv.Atoi(parts[0])
	return pid, parts[1], parts[2], err == nil
}

// startTime is field 22 of /proc/pid/stat, in clock ticks since boot; empty
// when there is no such process.
func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The command name, field 2, may hold spaces and brackets: count after it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// show pins the namespace under a name; without one it stays anonymous.
func (n *Namespace) show(name string) error {
	if name == "" {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := pinNamespace(int(n.fd), name)
	n.pin = p
	return err
}

// ownPins lists what the ledger says of this process.
func ownPins() ([]pin, error) {
	entries, err := os.ReadDir(ledgerDir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	var pins []pin
	started := startTime(os.Getpid())
	for _, e := range entries {
		if pid, start, name, ok := parseLedgerName(e.Name()); ok && pid == os.Getpid() && start == started {
			pins = append(pins, pin{name: name, ledger: filepath.Join(ledgerDir, e.Name())})
		}
	}
	return pins, err
}
