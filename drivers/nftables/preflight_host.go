package nftables

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// files says where Preflight finds what is told by files. Tests have others.
type files struct {
	sysctl string            // /proc/sys
	values map[string]string // read there: net/ipv4/fwmark_reflect -> 0
	net    string            // /proc/thread-self/net: that of the thread's namespace
	// nftables.service and what it loads; first found counts.
	unit, conf []string
	enabled    string // pattern of the links that systemctl enable makes
	dropIns    string // pattern of the unit's drop-ins
	// started holds a link for each unit that is active, made when it started
	// (systemd keeps them for its journal, since version 237).
	started string
}

func systemFiles() files {
	return files{
		sysctl: "/proc/sys", net: "/proc/thread-self/net",
		unit:    []string{"/etc/systemd/system/nftables.service", "/usr/lib/systemd/system/nftables.service", "/lib/systemd/system/nftables.service"},
		conf:    []string{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf"},
		enabled: "/etc/systemd/system/*.wants/nftables.service",
		dropIns: "/etc/systemd/system/nftables.service.d/*.conf",
		started: "/run/systemd/units",
	}
}

// within runs f on a thread in the network namespace of fd: files below
// /proc/sys/net show the namespace of the thread that opens them.
func within(fd int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := inNamespace(fd)
		switch {
		case err != nil:
			runtime.UnlockOSThread()
			done <- err
		case home:
			defer runtime.UnlockOSThread()
			done <- f()
		case unix.Gettid() == unix.Getpid():
			// The main thread does not end with its goroutine, and must not be
			// left in another namespace: keep it here while another one goes.
			defer runtime.UnlockOSThread()
			done <- within(fd, f)
		default:
			// Never unlocked, so that the thread ends with the goroutine.
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				done <- fmt.Errorf("enter the network namespace: %w", err)
				return
			}
			done <- f()
		}
	}()
	return <-done
}

func inNamespace(fd int) (bool, error) {
	var want, have unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return false, fmt.Errorf("network namespace: %w", err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &have); err != nil {
		return false, fmt.Errorf("network namespace of the thread: %w", err)
	}
	return want.Dev == have.Dev && want.Ino == have.Ino, nil
}

// watched are the sysctls that Preflight looks at.
var watched = []string{
	"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables",
	"net/bridge/bridge-nf-filter-vlan-tagged", "net/bridge/bridge-nf-pass-vlan-input-dev",
	"net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect",
	"net/netfilter/nf_conntrack_tcp_loose", "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max",
}

func readValues(root string) (map[string]string, error) {
	values := map[string]string{}
	for _, name := range watched {
		b, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the module that it belongs to is not there
		}
		if err != nil {
			return nil, err
		}
		values[name] = strings.TrimSpace(string(b))
	}
	return values, nil
}

// sysctlName writes a name as sysctl(8) does.
func sysctlName(path string) string { return strings.ReplaceAll(path, "/", ".") }

// ipRule is a rule of policy routing that asks for the packet mark.
type ipRule struct {
	mask uint32
	text string
}

func listIPRules() ([]ipRule, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("list ip rules: %w", err)
	}
	defer h.Close()
	var out []ipRule
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := h.RuleList(family)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without policy routing, or without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list ip rules: %w", err)
		}
		for _, r := range rules {
			mask := ^uint32(0)
			if r.Mask != nil {
				mask = *r.Mask
			}
			if r.Mark == 0 && (r.Mask == nil || mask == 0) {
				continue
			}
			command := "ip rule"
			if family == netlink.FAMILY_V6 {
				command = "ip -6 rule"
			}
			out = append(out, ipRule{mask, fmt.Sprintf("%s: %d: fwmark %#x/%#x lookup %d", command, r.Priority, r.Mark, mask, r.Table)})
		}
	}
	return out, nil
}
