package iptables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	goiptables "github.com/coreos/go-iptables/iptables"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// chooseTools finds the programs. "auto" is the variant that the host's own
// command iptables is, so that an operator finds the rules with it.
func chooseTools(_ context.Context, run xtables.Runner, variant string) (xtables.Tools, error) {
	t := xtables.Tools{Runner: run, IP: xtables.Variant(variant), LockSeconds: lockSeconds}
	if variant == variantAuto {
		ipt, err := goiptables.New()
		if err != nil {
			return t, fmt.Errorf("find iptables (apt install iptables ebtables, or dnf install iptables-nft ebtables): %w: %w", core.ErrUnsupported, err)
		}
		t.IP = xtables.Legacy
		if major, minor, patch := ipt.GetIptablesVersion(); atLeast([3]int{major, minor, patch}, [3]int{1, 8, 0}) && isNFT() {
			t.IP = xtables.NFT
		}
	}
	for _, f := range xtables.Families {
		for _, action := range []string{"save", "restore"} {
			if program := t.Program(f, action); !installed(program) {
				return t, fmt.Errorf("the program %s is not there (apt install iptables ebtables; variant is %s): %w", program, t.IP, core.ErrUnsupported)
			}
		}
	}
	return t, nil
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

func atLeast(have, want [3]int) bool {
	for i := range have {
		if have[i] != want[i] {
			return have[i] > want[i]
		}
	}
	return true
}

// isNFT asks the command iptables what it is. The version's number does not tell.
func isNFT() bool {
	out, err := exec.Command("iptables", "--version").Output()
	return err == nil && strings.Contains(string(out), "nf_tables")
}

// refuseOtherVariant refuses a host where the other variant holds rules of ours:
// both would be asked, and one of them would never change again.
func (b *Backend) refuseOtherVariant(ctx context.Context) error {
	other := b.tools
	other.IP = xtables.Legacy
	if b.tools.IP == xtables.Legacy {
		other.IP = xtables.NFT
	}
	if !installed(other.Program(xtables.IPv4, "save")) || other.IP == xtables.Legacy && !b.legacyTables() {
		return nil
	}
	s, _, err := other.Read(ctx, xtables.IPv4)
	var exit *xtables.ExitError
	if errors.As(err, &exit) {
		return nil // that variant does not work here, so that it holds nothing
	}
	if err != nil {
		return err
	}
	if ours := s.Ours(ourMarkers(), nil); !ours.Empty() {
		return fmt.Errorf("iptables-%s holds rules of ours, and iptables-%s is in use: set variant: %s, or remove them (iptables-%s -F; iptables-%s -X in tables filter and raw): %w",
			other.IP, b.tools.IP, other.IP, other.IP, other.IP, core.ErrConflict)
	}
	return nil
}

// legacyTables says whether the legacy iptables holds any table. To start
// iptables-legacy-save would make them.
func (b *Backend) legacyTables() bool {
	var names []byte
	err := xtables.InNamespace{FD: b.fd()}.Do(func() (err error) {
		names, err = os.ReadFile("/proc/thread-self/net/ip_tables_names")
		return err
	})
	return err == nil && len(names) > 0
}
