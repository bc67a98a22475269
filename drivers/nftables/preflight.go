package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// Preflight looks at the kernel, the bridges and at what else on the host has a
// say in bridged packets. Whatever can be tried is tried, in a transaction that
// never comes into force. Before the first Sync the options are not known, and
// every bridge counts as one that may be managed.
func (b *Backend) Preflight(ctx context.Context) ([]core.Check, error) {
	return b.preflight(ctx, systemFiles())
}

// surroundings is what Preflight judges, read once.
type surroundings struct {
	files    files
	marks    marks
	native   bool // br_netfilter does not carry the datapath
	options  core.Options
	synced   bool           // the options are those of a ruleset in force
	links    links.Snapshot // of now, not of the last event
	foreign  []*nft.Table   // other software's rules, without sets
	legacy   []legacyTable  // likewise, of iptables-legacy
	unread   error          // of iptables-legacy: it is in use and cannot be read
	ipRules  []ipRule
	expected core.Fingerprint // what should be in the kernel; zero = nothing yet
	found    core.Fingerprint
}

func (b *Backend) preflight(ctx context.Context, f files) ([]core.Check, error) {
	checks := []core.Check{b.checkKernel(ctx)}
	s, err := b.surroundings(ctx, f)
	if err != nil {
		return nil, err
	}
	return append(checks,
		s.checkBridgeNetfilter(), s.checkBridges(), s.checkOpenVSwitch(), s.checkSwitches(), s.checkTables(),
		s.checkForeignFilters(), s.checkPortRules(), s.checkMarks(), s.checkConntrack(), s.checkSysctls(), s.checkFlush(),
	), nil
}

func (b *Backend) surroundings(ctx context.Context, f files) (*surroundings, error) {
	s := &surroundings{files: f, marks: b.settings.marks, native: b.settings.native}
	b.mu.Lock()
	if b.enforced != nil {
		s.synced, s.options, s.expected = true, b.enforced.ruleset.Options, b.enforced.fingerprint
	}
	b.mu.Unlock()
	var err error
	if s.links, err = links.List(ctx, links.Options{NetNS: b.fd()}); err != nil {
		return nil, err
	}
	tables, err := b.conn.Tables(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range tables {
		if id.Name == TableName {
			continue
		}
		t, err := b.conn.ReadRules(ctx, id)
		if err != nil {
			return nil, err
		}
		if t != nil {
			s.foreign = append(s.foreign, t)
		}
	}
	if slices.Contains(tables, bridgeTable) {
		state, _, err := b.conn.ReadState(ctx, bridgeTable)
		if err != nil {
			return nil, err
		}
		s.found = readFingerprint(state)
	}
	err = within(b.fd(), func() (err error) {
		if s.files.values, err = readValues(f.sysctl); err != nil {
			return err
		}
		if s.ipRules, err = listIPRules(); err != nil {
			return err
		}
		s.legacy, s.unread = listLegacy(f)
		return nil
	})
	return s, err
}

// managed lists the bridges that are, or may come, under management, sorted.
func (s *surroundings) managed() []links.Bridge {
	var out []links.Bridge
	for _, b := range s.links.Bridges {
		if !b.OpenVSwitch && (!s.synced || s.options.ManagesBridge(b.Name)) {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b links.Bridge) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// isVMPort goes by the defaults of vm_ports until the options are known.
func (s *surroundings) isVMPort(name string) bool {
	if s.synced {
		return s.options.IsVMPort(name)
	}
	return core.MatchAny([]core.Pattern{"vnet*", "tap*", "vif*"}, name)
}

// finding is one thing that a check objects to.
type finding struct {
	status         core.Status
	what, seen, by string // by: the command or setting that mends it
}

// conclude makes a check of what was found: as bad as the worst of it.
func conclude(name, fine string, found []finding) core.Check {
	c := core.Check{Name: name, Summary: fine}
	if len(found) == 0 {
		return c
	}
	slices.SortStableFunc(found, func(a, b finding) int { return int(b.status) - int(a.status) })
	c.Status, c.Summary = found[0].status, found[0].what
	if n := len(found) - 1; n > 0 {
		c.Summary += fmt.Sprintf(", and %d more", n)
	}
	var seen, fixes []string
	for _, f := range found {
		if len(found) > 1 {
			seen = append(seen, f.what+": "+f.seen)
		} else {
			seen = append(seen, f.seen)
		}
		if f.by != "" && !slices.Contains(fixes, f.by) {
			fixes = append(fixes, f.by)
		}
	}
	c.Evidence, c.Fix = strings.Join(seen, "\n"), strings.Join(fixes, "\n")
	return c
}

// checkKernel builds the very tables that Sync would.
func (b *Backend) checkKernel(ctx context.Context) core.Check {
	s := skeleton{options: core.Options{Bridges: []core.Pattern{"probe*"}, VMPorts: []core.Pattern{"probe*"}, AllowDNS: true}, marks: b.settings.marks, native: b.settings.native}
	var found []finding
	for _, t := range []*nft.Table{s.bridge(), s.ip(fam4), s.ip(fam6), linkLocalGuard([]string{"lo"}, false)} {
		if err := b.conn.Probe(ctx, t); err != nil {
			found = append(found, kernelLacks(t, err))
		}
	}
	return conclude("nf-tables", "the kernel takes every rule and set that the driver uses", found)
}

// kernelLacks names the feature behind a refusal. The first of the errors is
// the cause; the others follow from it.
func kernelLacks(t *nft.Table, err error) finding {
	f := finding{core.StatusError, "", fmt.Sprintf("%v; kernel %s", err, release()),
		"use the iptables driver (backend: {driver: iptables}), or a kernel from 5.7 on with nf_tables for bridge, ip, ip6 and netdev"}
	var refused nft.Errors
	if !errors.As(err, &refused) || len(refused) == 0 {
		f.what = "the kernel's nf_tables cannot be asked"
		if errors.Is(err, syscall.EPERM) {
			f.by = "run as root, or with CAP_NET_ADMIN"
		}
		return f
	}
	first := refused[0]
	f.what = "the kernel refuses a part of the ruleset: " + first.Object
	if errors.Is(first, syscall.EPERM) {
		f.what, f.by = "nf_tables may not be changed by this process", "run as root, or with CAP_NET_ADMIN"
		return f
	}
	if strings.HasPrefix(first.Object, "table ") {
		f.what = fmt.Sprintf("the kernel has no nf_tables for family %s (CONFIG_NF_TABLES_%s)", t.Family, strings.ToUpper(t.Family.String()))
		return f
	}
	for name, set := range t.Sets {
		if !strings.HasSuffix(first.Object, " set "+name) {
			continue
		}
		switch {
		case set.Interval && len(set.Key) > 1:
			f.what = "the kernel has no interval sets of concatenated keys (it came with 5.6)"
		case set.Dynamic:
			f.what = "the kernel has no sets that packets fill (nft_dynset, with counters from 5.7 on)"
		}
	}
	return f
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// checkTables compares the fingerprint that is wanted with the one in the
// kernel. Every difference, object by object, is Observe's to find.
func (s *surroundings) checkTables() core.Check {
	switch {
	case !s.synced:
		return core.Check{Name: "tables", Summary: "nothing has been written since the agent started"}
	case s.found == s.expected:
		return core.Check{Name: "tables", Summary: "the tables hold ruleset " + s.found.Short()}
	}
	c := core.Check{Name: "tables", Status: core.StatusError,
		Summary:  "the tables are gone: somebody has flushed the ruleset, and every port is open",
		Evidence: fmt.Sprintf("no fingerprint in table %s; %s is wanted", bridgeTable, s.expected.Short()),
		Fix:      "systemctl restart ringwalld (a running agent puts them back by itself); nft monitor shows who flushes"}
	if s.found != (core.Fingerprint{}) {
		c.Summary, c.Evidence = "the tables hold another ruleset", fmt.Sprintf("%s in table %s; %s is wanted", s.found.Short(), bridgeTable, s.expected.Short())
	}
	return c
}
