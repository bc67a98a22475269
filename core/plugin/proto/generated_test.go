package pb

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A .proto file that was changed without `make generate`, or generated code
// that was changed by hand. It needs neither buf nor a network.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	f, err := os.Open("generated.sum")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		sum, name, _ := strings.Cut(lines.Text(), "  ")
		want[name] = sum
	}
	var names []string
	for _, pattern := range []string{"*.proto", "*.pb.go", "buf.gen.yaml"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, more...)
	}
	if len(names) != len(want) {
		t.Errorf("%d files, %d sums; run make generate", len(names), len(want))
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want[name] {
			t.Errorf("%s is not what was generated; run make generate", name)
		}
	}
}
