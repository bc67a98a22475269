package cloudstack_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/source/cloudstack"
)

var update = flag.Bool("update", false, "rewrite golden files")

// describe is what a rule string means: entries, warnings or the error.
func describe(s string) string {
	r, err := cloudstack.ParseRules(s, cloudstack.SeparatorKVM)
	if err != nil {
		return "  error " + err.Error() + "\n"
	}
	var b strings.Builder
	for _, rule := range r.Core() {
		for _, e := range policy.EntriesOf(rule) {
			fmt.Fprintf(&b, "  %s %s %s %s %s\n", e.Direction, e.Family, e.Protocol, e.Span, e.Peer)
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "  warning %s\n", w)
	}
	if b.Len() == 0 {
		return "  nothing\n"
	}
	return b.String()
}

// TestRuleStrings holds the corpus, one string a line, against what it means.
func TestRuleStrings(t *testing.T) {
	corpus, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(corpus)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			fmt.Fprintln(&b, line)
			continue
		}
		fmt.Fprintf(&b, "%s\n%s", line, describe(line))
	}
	const golden = "testdata/rules.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("not what %s says; got\n%s", golden, got)
	}
}

func TestRuleStringLimits(t *testing.T) {
	for name, s := range map[string]string{
		"bytes": strings.Repeat("x", cloudstack.MaxRuleBytes+1),
		"rules": strings.Repeat("I:all;0;0;NEXT;", cloudstack.MaxRules+1),
		"CIDRs": "I:all;0;0;" + strings.Repeat("10.0.0.1/32,", core.MaxCIDRs+1) + "NEXT;",
	} {
		if _, err := cloudstack.ParseRules(s, cloudstack.SeparatorKVM); !errors.Is(err, core.ErrInvalid) || len(err.Error()) > 300 {
			t.Errorf("too many %s: %.300v", name, err)
		}
	}
	var big strings.Builder
	big.WriteString("I:tcp;443;443;")
	for i := range 9000 {
		fmt.Fprintf(&big, "10.%d.%d.0/24,", i/256, i%256)
	}
	big.WriteString("NEXT;")
	r, err := cloudstack.ParseRules(big.String(), cloudstack.SeparatorKVM)
	if err != nil || len(r.Rules[0].CIDRs) != 9000 {
		t.Errorf("what one argument holds: %v", err)
	}
}

func TestRuleStringOfXenServer(t *testing.T) {
	r, err := cloudstack.ParseRules("I:tcp;22;22;10.0.0.0/8,NEXT E:udp;53;53;0.0.0.0/0,NEXT ", cloudstack.SeparatorXenServer)
	if err != nil || len(r.Rules) != 2 || len(r.Warnings) != 0 || r.Rules[1].Direction != core.Egress {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzRules: whatever comes, the result is an error of one line or rules that
// are valid; and nothing that is not an ingress rule with CIDRs lets anything in.
func FuzzRules(f *testing.F) {
	corpus, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(corpus)) {
		f.Add(strings.TrimSuffix(line, "\n"))
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := cloudstack.ParseRules(s, cloudstack.SeparatorKVM)
		if err != nil {
			if !errors.Is(err, core.ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%q", err.Error())
			}
			return
		}
		rules := r.Core()
		if err := core.Validate([]core.Group{{Name: core.ReservedGroupPrefix + "x", Rules: rules}}, nil, core.AllowReserved); err != nil {
			t.Errorf("%q gives rules that are not valid: %v", s, err)
		}
		for _, rule := range rules {
			if rule.Peers == nil || len(rule.Peers.CIDRs) == 0 {
				t.Errorf("%q gives a rule for everybody: %+v", s, rule)
			}
			if rule.Direction == core.Ingress && !strings.Contains(s, "I:") {
				t.Errorf("%q opens ingress", s)
			}
		}
		if slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.ContainsAny(w, "\n\x00") }) {
			t.Errorf("%q", r.Warnings)
		}
	})
}
