package main

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// notifier tells systemd what it says (sd_notify(3), Type=notify-reload).
// Elsewhere nobody listens.
func notifier(environ []string) func(state string) {
	path := ""
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, "NOTIFY_SOCKET="); ok {
			path = v
		}
	}
	if path == "" {
		return func(string) {}
	}
	if strings.HasPrefix(path, "@") { // Linux's abstract sockets
		path = "\x00" + path[1:]
	}
	return func(state string) {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			return // systemd will see by itself that nothing came
		}
		defer conn.Close()
		_, _ = conn.Write([]byte(state))
	}
}

// reloading carries the clock that systemd 253 wants, to tell one reload from
// another.
func reloading() string {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", t.Nano()/1000)
}
