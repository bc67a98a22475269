// ringwall-libvirt-hook is libvirt's qemu hook: it has the agent put a VM's
// policy in force while the VM's taps exist and its guest has not run yet.
//
// It is a program of its own, small and without flags, because libvirt runs it
// several times for every VM that starts, and starts no VM before it ends.
// ringwall install libvirt-hook puts it where libvirt looks.
package main

import (
	"context"
	"log/slog"
	"log/syslog"
	"os"

	"github.com/ringwall/ringwall/hypervisors/kvm"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

func main() {
	os.Exit(run())
}

func run() int {
	log := logger()
	file, next := hook.Place(os.Args[0])
	config, err := hook.ReadConfig(file)
	if err != nil {
		log.Error("the hook's config is not used", "error", err)
	}
	h := hook.Hook{Programmer: agent{config.Socket}, Config: config, Next: next, Log: log, Links: kvm.FakeLinks{}}
	links, err := kvm.OpenLinks()
	if err != nil {
		log.Warn("the kernel is not asked where taps are plugged in", "error", err)
	} else {
		defer links.Close()
		h.Links = links
	}
	return h.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// logger writes to the system's log: of a hook that succeeds, libvirt keeps no
// word.
func logger() *slog.Logger {
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_NOTICE, "ringwall-libvirt-hook")
	if err != nil {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{} // syslog has its own
		}
		return a
	}}))
}
