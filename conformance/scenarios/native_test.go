//go:build guest

package scenarios_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/guests"
)

// failed finds the tests that failed in the output of a test binary.
var failed = regexp.MustCompile(`(?m)^ *--- FAIL: \S+/\S+`)

// nativeRun narrows the scenarios in the guest, as go test's -run does here.
var nativeRun = flag.String("native-run", "^TestNFTables$", "which tests run inside the guest")

// The native datapath needs nf_conntrack_bridge: the scenarios run in a guest
// whose kernel has it. Emulated, it takes five minutes where nothing else runs.
func TestNFTablesNativeInGuest(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	dir := t.TempDir()
	binary := filepath.Join(dir, "scenarios.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	image, err := guests.BuildImage(ctx, filepath.Join(dir, "initrd"), guests.ImageOptions{
		Modules: guests.PacketLabModules, Files: map[string]string{"bin/scenarios.test": binary},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := guests.Run(ctx, guests.RunSpec{Image: image, Memory: 2048, CPUs: 2, Argv: []string{
		"/bin/scenarios.test", "-test.run=" + *nativeRun, "-test.parallel=4", "-datapath=native",
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range failed.FindAll(r.Output, -1) {
		t.Errorf("%s", bytes.TrimSpace(name))
	}
	if r.Status != 0 || t.Failed() {
		t.Fatalf("the scenarios ended with status %d\n%s", r.Status, r.Output)
	}
}
