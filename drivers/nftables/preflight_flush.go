package nftables

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
)

// nftables.service, as distributions ship it, flushes the whole ruleset, ours
// too, each time it is stopped, restarted or reloaded: every port is open until
// the agent notices. At boot it does no harm where it runs first, and that is
// worth a warning alone; it is an error where it has run after us.

var (
	flushLine = regexp.MustCompile(`(?m)^[ \t]*flush[ \t]+ruleset\b[^\n]*`)
	tableLine = regexp.MustCompile(`(?m)^[ \t]*table[ \t]+((?:(?:ip|ip6|inet|arp|bridge|netdev)[ \t]+)?[A-Za-z_][\w./-]*)`)
	stopLine  = regexp.MustCompile(`(?m)^ExecStop=(.*)$`)
)

func (s *surroundings) checkFlush() core.Check {
	const name, fine = "flush-ruleset", "no service flushes the ruleset of the host"
	if links, _ := filepath.Glob(s.files.enabled); len(links) == 0 {
		return core.Check{Name: name, Summary: fine}
	}
	var found []finding
	conf, text, err := firstFile(s.files.conf)
	if err != nil {
		return core.Check{Name: name, Status: core.StatusWarning, Summary: "what nftables.service loads cannot be read", Evidence: err.Error(), Fix: "run as root"}
	}
	if line := flushLine.FindString(text); line != "" {
		status, what := core.StatusWarning, "nftables.service flushes the whole ruleset when it is restarted or reloaded: every port would be open until the agent notices"
		if s.flushedAfterUs() {
			status, what = core.StatusError, "nftables.service has flushed the whole ruleset after Ringwall had closed it: every port was open until the agent noticed"
		}
		found = append(found, finding{status, what,
			conf + ": " + strings.TrimSpace(line), replaceFlush(conf, text)})
	}
	unit, text, err := firstFile(s.files.unit)
	if err != nil {
		return core.Check{Name: name, Status: core.StatusWarning, Summary: "nftables.service cannot be read", Evidence: err.Error(), Fix: "run as root"}
	}
	dropIns, _ := filepath.Glob(s.files.dropIns)
	slices.Sort(dropIns)
	for _, d := range dropIns {
		b, err := os.ReadFile(d)
		if err != nil {
			continue // gone meanwhile
		}
		text += "\n" + string(b)
	}
	if stop := stopCommand(text); strings.Contains(stop, "flush ruleset") {
		dir := filepath.Dir(s.files.dropIns)
		found = append(found, finding{core.StatusWarning, "nftables.service flushes the whole ruleset when it is stopped or restarted: every port would be open until the agent notices",
			unit + ": ExecStop=" + stop,
			fmt.Sprintf("mkdir -p %s && printf '[Service]\\nExecStop=\\n' >%s/ringwall.conf && systemctl daemon-reload", dir, dir)})
	}
	return conclude(name, fine, found)
}

// flushedAfterUs: nftables.service has started after the unit that closes the
// host at boot, or after the agent where there is no such unit.
func (s *surroundings) flushedAfterUs() bool {
	started := func(unit string) (t time.Time) {
		if l, err := os.Lstat(filepath.Join(s.files.started, "invocation:"+unit)); err == nil {
			t = l.ModTime()
		}
		return t
	}
	us := started("ringwall-closed.service")
	if us.IsZero() {
		us = started("ringwalld.service")
	}
	return !us.IsZero() && started("nftables.service").After(us)
}

// stopCommand is what the last ExecStop= lines come to; an empty one takes all
// before it back (systemd.service(5)).
func stopCommand(unit string) string {
	var commands []string
	for _, m := range stopLine.FindAllStringSubmatch(unit, -1) {
		if c := strings.TrimSpace(m[1]); c == "" {
			commands = nil
		} else {
			commands = append(commands, c)
		}
	}
	return strings.Join(commands, "; ")
}

// replaceFlush is a command that makes a file flush its own tables in place of
// all: "table x" makes it if it is not there, so that it can be deleted.
func replaceFlush(conf, text string) string {
	var own []string
	for _, m := range tableLine.FindAllStringSubmatch(text, -1) {
		t := strings.Join(strings.Fields(m[1]), " ")
		if line := "table " + t + `\ndelete table ` + t; !slices.Contains(own, line) {
			own = append(own, line)
		}
	}
	return fmt.Sprintf(`sed -i 's/^[[:space:]]*flush ruleset.*/%s/' %s`, strings.ReplaceAll(strings.Join(own, `\n`), "/", `\/`), conf)
}

// firstFile reads the first of the files that there is; none is no error.
func firstFile(paths []string) (path, text string, err error) {
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return p, string(b), err
	}
	return "", "", nil
}
