package cloudstack_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/cloudstack"
	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
)

// ringwall runs the operator's command.
func (r *rig) ringwall(args ...string) result {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), filepath.Join(r.bin, "ringwall"), args...)
	cmd.Env = append(r.environ(), "PATH=/nonexistent") // the machine's dpkg is left alone
	return run(cmd)
}

// TestAdopt: Ringwall takes a host over from the stock script under traffic, VM
// by VM, and gives it back: what is denied gets nothing through at any time,
// what is allowed loses nothing while it is taken over.
func TestAdopt(t *testing.T) {
	const vms = 20
	r := newRig(t, rigOptions{idle: true})
	script := filepath.Join(r.dir, "security_group.py")
	labtest.Check(t, os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755))
	config, err := os.ReadFile(filepath.Join(r.dir, "config.yaml"))
	labtest.Check(t, err)
	labtest.Check(t, os.WriteFile(filepath.Join(r.dir, "config.yaml"), []byte(strings.Replace(string(config), "{enabled: true,",
		fmt.Sprintf("{enabled: true, script: %s, command: %s/security_group,", script, r.bin), 1)), 0o600))

	// The host as the stock script has made it.
	s := &cloudstack.Incumbent{Bridge: "cloudbr0", Uplink: "eth0", Files: filepath.Join(r.dir, "cloud")}
	const rules = "I:udp;6000;6000;0.0.0.0/0,NEXT;I:icmp;-1;-1;0.0.0.0/0,NEXT;"
	byScript := func(g *guest) {
		t.Helper()
		labtest.Check(t, r.host.Do(func() error {
			if err := s.Default(g.asVM()); err != nil {
				return err
			}
			return s.Add(g.asVM(), 5, rules)
		}))
	}
	guests := make([]*guest, vms)
	for i := range guests {
		guests[i] = r.bootLoud(i + 1)
		byScript(guests[i])
	}
	first, last := guests[0], guests[vms-1]
	var allowed []*lab.Flood
	var denied []func(int)
	for _, g := range []*guest{first, last} {
		allowed = append(allowed, labtest.Must(lab.StartFlood(t.Context(), lab.FloodSpec{From: r.outside, To: g, Service: lab.UDP(6000), Rate: 200}))(t))
		denied = append(denied, r.flood(guests[5], g, 6001))
	}

	// In.
	r.start()
	res := r.ringwall("install", "cloudstack", "--adopt")
	if res.code != 0 || strings.Count(res.stdout, "keeps the script's rules") != vms {
		t.Fatalf("%+v", res)
	}
	if to, err := os.Readlink(script); err != nil || to != filepath.Join(r.bin, "security_group") {
		t.Errorf("%s, %v", to, err)
	}
	for vm, seq := range r.logs() {
		if seq != "-1" {
			t.Errorf("%s has the number %s before its rules have come", vm, seq)
		}
	}
	for i, g := range guests { // as the server sends them, one VM after the other
		r.must(g.defaults(0, "--check")...)
		r.must(g.rules(5, rules)...)
		chains := r.inHost("iptables-save", "-t", "filter")
		if strings.Contains(chains, g.name) {
			t.Errorf("after the rules of %s its stock chains are there still", g.name)
		}
		if i < vms-1 && !strings.Contains(chains, guests[i+1].name) {
			t.Errorf("after the rules of %s those of %s are gone, too", g.name, guests[i+1].name)
		}
	}
	for vm, seq := range r.logs() {
		if seq != "5" {
			t.Errorf("%s has the number %s", vm, seq)
		}
	}
	for _, f := range allowed {
		if st := f.Stop(); st.LostTotal() > 0 {
			t.Errorf("allowed while it was taken over: %s", st)
		}
	}
	for what, text := range map[string]string{"iptables": r.inHost("iptables-save"), "ip6tables": r.inHost("ip6tables-save"), "ebtables": r.inHost("ebtables-save"), "ipset": r.inHost("ipset", "list", "-n")} {
		if strings.Contains(text, "BF-") || strings.Contains(text, fmt.Sprintf("i-%d-", account)) {
			t.Errorf("left of the stock script in %s:\n%s", what, text)
		}
	}

	// Out.
	if res := r.ringwall("uninstall", "cloudstack"); res.code != 0 {
		t.Fatalf("%+v", res)
	}
	if info, err := os.Lstat(script); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the script is not back: %v", err)
	}
	for _, g := range guests {
		log, err := os.ReadFile(filepath.Join(r.dir, "cloud", g.name+".log"))
		if err != nil || !strings.HasSuffix(string(log), ",-1\n") {
			t.Errorf("%q, %v", log, err)
		}
		byScript(g)
	}
	gone := func() bool { return !strings.Contains(r.inHost("nft", "list", "ruleset"), mac(1, 0).String()+" . ") }
	if !r.wait(30*time.Second, gone) {
		t.Error("Ringwall has not let go")
	}
	labtest.Check(t, lab.Connect(t.Context(), r.outside, first.Addr(4), lab.ICMP(), lab.ConnectOptions{Timeout: 5 * time.Second}))
	for _, d := range denied {
		d(0)
	}
}
