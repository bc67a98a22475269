// Package programs is for tests that run the project's programs as processes: it
// builds them, and keeps what they say.
package programs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
)

const module = "github.com/ringwall/ringwall/"

// Build builds programs, named by their folders ("cmd/ringwalld"), static, as
// `make build` does, into a folder that the caller removes.
func Build(folders ...string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "ringwall-programs-"); err != nil {
		return "", err
	}
	args := []string{"build", "-buildvcs=false", "-o", dir + "/"}
	for _, f := range folders {
		args = append(args, module+f)
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("build %v: %w\n%s", folders, err, out)
	}
	return dir, nil
}

// Log is a buffer that a program writes while a test reads.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
