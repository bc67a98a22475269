package iptables_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/drivers/iptables"
)

// Whichever program fails, the former ruleset is in force, and the change can be
// made again.
func TestRefusedChangeIsUndone(t *testing.T) {
	for _, program := range []string{"iptables-nft-restore", "ip6tables-nft-restore", "ebtables-nft-restore"} {
		t.Run(program, func(t *testing.T) {
			dir := t.TempDir()
			broken := filepath.Join(dir, "broken")
			real := labtest.Must(exec.LookPath(program))(t)
			// It fails once.
			script := fmt.Sprintf("#!/bin/sh\nif rm %s 2>/dev/null; then echo no thanks >&2; exit 1; fi\nexec %s \"$@\"\n", broken, real)
			labtest.Check(t, os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755))
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))

			s := newSite(t)
			b := s.open(iptables.Driver(), core.Settings{"variant": "nft"})
			old := compile(t, two(3))
			labtest.Check(t, b.Sync(t.Context(), old.Ruleset))
			in := two(5)
			in.VMs[1].NICs[0].Addresses = in.VMs[1].NICs[0].Addresses[:1]
			in.Groups[1].Rules = append(in.Groups[1].Rules, core.Rule{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 80, Last: 80}}})
			in.VMs = append(in.VMs, in.VMs[0])
			in.VMs[2].Key, in.VMs[2].Name = "i-2-9-VM", "i-2-9-VM"
			in.VMs[2].NICs = []core.NIC{{MAC: core.MAC{2, 0, 0, 0, 0, 0x0c}, Groups: []string{"a"}, Binding: core.Binding{Bridge: "cloudbr0", Devices: []string{"vnet2"}}}}
			next := compile(t, in)
			labtest.Check(t, os.WriteFile(broken, nil, 0o644))
			if err := b.Apply(t.Context(), policy.Diff(old, next)); err == nil {
				t.Fatal("the failure was not told")
			}
			insync(t, b, old)
			labtest.Check(t, b.Apply(t.Context(), policy.Diff(old, next)))
			insync(t, b, next)
		})
	}
}
