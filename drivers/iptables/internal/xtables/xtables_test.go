package xtables_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

var filter = xtables.TableID{Family: xtables.IPv4, Name: "filter"}

func parse(t *testing.T, f xtables.Family, text string) xtables.State {
	t.Helper()
	s, _, err := xtables.Parse(f, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The same said in two ways.
func TestKeysOfTheSameRule(t *testing.T) {
	for _, pair := range [][2]string{
		{"-p udp -m udp --dport 53 -j DROP", "--protocol 17 --dport 53 -j DROP"},
		{"-s 10.0.0.1/32 -j DROP", "-s 10.0.0.1 -j DROP"},
		{"-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"},
		{"-p ARP -s 2:0:0:0:0:a -j RETURN", "-p 0x0806 -s 02:00:00:00:00:0a -j RETURN"},
		{"-d Broadcast -j DROP", "-d ff:ff:ff:ff:ff:ff -j DROP"},
		{"-p RARP --arp-op Request_Reverse -j DROP", "-p 0x8035 --arp-op 3 -j DROP"},
		{"-j mark --mark-or 0x1 --mark-target ACCEPT", "-j mark --mark-or 0x01"},
		{`-m comment --comment "a b"`, `-m comment --comment "a b"`},
	} {
		keys := map[string]bool{}
		for _, spec := range pair {
			s := parse(t, xtables.IPv4, "*filter\n:X - [0:0]\n-A X "+spec+"\nCOMMIT\n")
			keys[s[filter].Chains["X"].Rules[0].Key()] = true
		}
		if len(keys) != 1 {
			t.Errorf("%q and %q are taken for different", pair[0], pair[1])
		}
	}
}

func TestKeysOfDifferentRules(t *testing.T) {
	for _, pair := range [][2]string{
		{"-s 10.0.0.0/24 -j DROP", "-s 10.0.0.0/25 -j DROP"},
		{"-i vnet0 -j DROP", "! -i vnet0 -j DROP"},
		{"-j X", "-g X"},
		{"-m mark --mark 0x1/0x1 -j DROP", "-m mark --mark 0x1/0x3 -j DROP"},
	} {
		keys := map[string]bool{}
		for _, spec := range pair {
			s := parse(t, xtables.IPv4, "*filter\n:Y - [0:0]\n-A Y "+spec+"\nCOMMIT\n")
			keys[s[filter].Chains["Y"].Rules[0].Key()] = true
		}
		if len(keys) != 2 {
			t.Errorf("%q and %q are taken for the same", pair[0], pair[1])
		}
	}
}

const have = `*filter
:FORWARD ACCEPT [0:0]
:rw-a - [0:0]
:rw-gone - [0:0]
:rw-same - [0:0]
:THEIRS - [0:0]
-A FORWARD -j rw-gone
-A FORWARD -j rw-a
-A FORWARD -i docker0 -j THEIRS
-A rw-a -j DROP
-A rw-gone -j rw-a
-A rw-same -j RETURN
COMMIT
`

const want = `*filter
:FORWARD ACCEPT [0:0]
:rw-a - [0:0]
:rw-new - [0:0]
:rw-same - [0:0]
-A FORWARD -j rw-a
-A FORWARD -j rw-new
-A rw-a -j ACCEPT
-A rw-new -j rw-a
-A rw-same -j RETURN
COMMIT
`

// A script touches the chains that differ, and of built-in ones our rules.
func TestDiff(t *testing.T) {
	read, wanted := parse(t, xtables.IPv4, have), parse(t, xtables.IPv4, want)
	ours := read.Ours(xtables.Markers{Prefix: "rw-"}, wanted)
	script := xtables.Diff(xtables.IPv4, ours, wanted, read)
	if d := cmp.Diff(`*filter
:rw-a - [0:0]
:rw-new - [0:0]
:rw-gone - [0:0]
-D FORWARD -j rw-gone
-A rw-a -j ACCEPT
-A rw-new -j rw-a
-I FORWARD 2 -j rw-new
-X rw-gone
COMMIT
`, script.Text()); d != "" {
		t.Error(d)
	}
	if again := xtables.Diff(xtables.IPv4, wanted, wanted, wanted); !again.Empty() {
		t.Errorf("there is something left to do:\n%s", again.Text())
	}
}

// A foreign rule before ours is passed over: all of ours go to the head again.
func TestDiffPutsOursFirst(t *testing.T) {
	wanted := parse(t, xtables.IPv4, want)
	read := parse(t, xtables.IPv4, strings.Replace(want, "-A FORWARD -j rw-a\n", "-A FORWARD -j ACCEPT\n-A FORWARD -j rw-a\n", 1))
	ours := read.Ours(xtables.Markers{Prefix: "rw-"}, wanted)
	if d := cmp.Diff(`*filter
-D FORWARD -j rw-a
-D FORWARD -j rw-new
-I FORWARD 1 -j rw-a
-I FORWARD 2 -j rw-new
COMMIT
`, xtables.Diff(xtables.IPv4, ours, wanted, read).Text()); d != "" {
		t.Error(d)
	}
	if found := xtables.Compare(ours, wanted, read); len(found) != 1 || !strings.Contains(found[0].Difference, "before ours") {
		t.Errorf("compared: %+v", found)
	}
}

type runner func(xtables.Command) (string, error)

func (r runner) Run(_ context.Context, c xtables.Command) (string, error) { return r(c) }

// A refusal names the chain that the refused line is about, and for what it is.
func TestRefusalsNameTheChain(t *testing.T) {
	s := xtables.State{filter: xtables.NewTable()}
	s[filter].Set("rw-x", "nic a", xtables.New([]xtables.Option{xtables.Opt("-j", "NOWHERE")}))
	tools := xtables.Tools{IP: xtables.NFT, Runner: runner(func(c xtables.Command) (string, error) {
		return "", &xtables.ExitError{Argv: c.Argv, Stderr: "iptables-nft-restore: line 3 failed", Err: errors.New("exit status 1")}
	})}
	err := tools.Apply(t.Context(), xtables.Diff(xtables.IPv4, nil, s, nil))
	var refused *xtables.Refused
	if !errors.As(err, &refused) || len(refused.About) != 1 || refused.About[0] != "nic a" || !strings.Contains(err.Error(), "rw-x") {
		t.Errorf("%+v", err)
	}
}
