package nftables

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// Debian's: both what it loads and how it stops.
const (
	stockConf = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\ntable ip nat/x {\n}\n"
	stockUnit = "[Service]\nExecStart=/usr/sbin/nft -f /etc/nftables.conf\nExecStop=/usr/sbin/nft flush ruleset\n"
)

func TestPreflightFlush(t *testing.T) {
	p := newPatient(t)
	p.write("nftables.conf", strings.ReplaceAll(stockConf, "nat/x", "nat"))
	p.write("nftables.service", stockUnit)
	p.expectHealth() // not enabled
	p.write("sysinit.target.wants/nftables.service", "")
	got := p.expect("flush-ruleset", core.StatusWarning)
	contains(t, "the evidence", got.Evidence, "flush ruleset", "ExecStop=")
	for fix := range strings.Lines(got.Fix) {
		fix, _, _ = strings.Cut(strings.TrimSpace(fix), " && systemctl")
		p.run(fix)
	}
	p.expectHealth()

	// What the file loads is as before, time and again, and our tables stay.
	p.sync()
	for range 2 {
		p.run("nft -f " + p.files.conf[0])
	}
	p.expectHealth()
	tables := labtest.Must(p.backend.conn.Tables(t.Context()))(t)
	for _, want := range []nft.TableID{{Family: nft.Inet, Name: "filter"}, {Family: nft.IPv4, Name: "nat"}, bridgeTable} {
		if !slices.Contains(tables, want) {
			t.Errorf("%v lacks %s", tables, want)
		}
	}
	// A comment is no command, and a later line takes the drop-in back.
	p.write("nftables.conf", "# flush ruleset\n")
	p.expectHealth()
	p.write("nftables.service.d/zz.conf", "[Service]\nExecStop=/usr/sbin/nft flush ruleset\n")
	p.expect("flush-ruleset", core.StatusWarning)
}

// Flushed after us, it has opened the host.
func TestPreflightFlushedAfterUs(t *testing.T) {
	p := newPatient(t)
	p.write("nftables.conf", stockConf)
	p.write("nftables.service", "[Service]\n")
	p.write("sysinit.target.wants/nftables.service", "")
	start := func(unit string) {
		link := filepath.Join(p.files.started, "invocation:"+unit)
		labtest.Check(t, os.MkdirAll(p.files.started, 0o755))
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // file systems keep time by the tick
		labtest.Check(t, os.Symlink("0123456789abcdef", link))
	}
	start("nftables.service")
	p.expect("flush-ruleset", core.StatusWarning) // we have never run
	start("ringwalld.service")
	p.expect("flush-ruleset", core.StatusWarning)
	start("nftables.service")
	contains(t, "the summary", p.expect("flush-ruleset", core.StatusError).Summary, "after Ringwall had closed it")
	start("ringwall-closed.service")
	start("ringwalld.service") // restarted since
	p.expect("flush-ruleset", core.StatusWarning)
	start("nftables.service")
	start("ringwalld.service")
	p.expect("flush-ruleset", core.StatusError)
}
