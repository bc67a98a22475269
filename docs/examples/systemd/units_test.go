// Package systemd_test checks the units that an operator is told to install.
package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// staged copies the units, with a program in place of the agent's that need not
// be installed here.
func staged(t *testing.T) (units []string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "ringwalld")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.service")
	if err != nil || len(files) != 2 {
		t.Fatalf("units %v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(b), "/usr/sbin/ringwalld", program)
		if text == string(b) {
			t.Errorf("%s does not run /usr/sbin/ringwalld", f)
		}
		path := filepath.Join(dir, f)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, path)
	}
	return units
}

func analyze(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	cmd := exec.Command("systemd-analyze", args...)
	// The units of the machine are none of the test's business.
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning")
	b, err := cmd.CombinedOutput()
	return string(b), err
}

func TestVerify(t *testing.T) {
	for _, unit := range staged(t) {
		if out, err := analyze(t, "verify", "--man=no", unit); err != nil || out != "" {
			t.Errorf("systemd-analyze verify %s: %v\n%s", filepath.Base(unit), err, out)
		}
	}
}

// verify tells of a misspelt key only in its output; this test shows that
// TestVerify looks there.
func TestVerifySeesASlip(t *testing.T) {
	unit := staged(t)[1]
	b, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unit, []byte(strings.Replace(string(b), "RestartSec=", "RestartSecs=", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ := analyze(t, "verify", "--man=no", unit); !strings.Contains(out, "RestartSecs") {
		t.Errorf("no word of the slip: %q", out)
	}
}

// Least privilege, by systemd's own measure (10 is everything): whoever adds a
// right has to raise this number.
func TestExposure(t *testing.T) {
	for _, unit := range staged(t) {
		if out, err := analyze(t, "security", "--offline=yes", "--threshold=30", unit); err != nil {
			t.Errorf("systemd-analyze security %s: %v\n%s", filepath.Base(unit), err, out)
		}
	}
}

// What starts VMs waits for both units.
func TestOrder(t *testing.T) {
	for unit, others := range map[string][]string{
		"ringwall-closed.service": {"libvirtd.service", "libvirtd.socket", "virtqemud.service", "virtqemud.socket", "libvirt-guests.service", "cloudstack-agent.service"},
		"ringwalld.service":       {"libvirtd.service", "virtqemud.service", "libvirt-guests.service", "cloudstack-agent.service"},
	} {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]bool{}
		for line := range strings.Lines(string(b)) {
			if list, ok := strings.CutPrefix(strings.TrimSpace(line), "Before="); ok {
				for u := range strings.FieldsSeq(list) {
					before[u] = true
				}
			}
		}
		for _, o := range others {
			if !before[o] {
				t.Errorf("%s does not come before %s", unit, o)
			}
		}
	}
}
