package xtables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Variant is which of the kernel's two interfaces the programs speak to.
type Variant string

const (
	NFT    Variant = "nft"
	Legacy Variant = "legacy"
)

// Command is a process to run.
type Command struct {
	Argv  []string
	Stdin string
}

// Runner runs processes: in the namespace that is enforced on, or in a test's
// imagination.
type Runner interface {
	// Run gives what was printed. A process that fails is an *ExitError.
	Run(ctx context.Context, c Command) (stdout string, err error)
}

// ExitError is a process that ended badly.
type ExitError struct {
	Argv   []string
	Stderr string
	Err    error
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: %v: %s", strings.Join(e.Argv, " "), e.Err, strings.TrimSpace(e.Stderr))
}

func (e *ExitError) Unwrap() error { return e.Err }

// InNamespace runs processes in the network namespace with the given
// descriptor.
type InNamespace struct{ FD int }

// Run starts the process on a thread in the namespace: a child inherits that of
// the thread that forks.
func (n InNamespace) Run(ctx context.Context, c Command) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.Stdin), &stdout, &stderr
	if err := n.Do(cmd.Run); err != nil {
		return "", &ExitError{c.Argv, stderr.String(), err}
	}
	return stdout.String(), nil
}

// Do runs f on a thread of its own in the namespace.
func (n InNamespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and /proc/self shows its namespace.
			err := n.Do(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		// Never unlocked: the thread ends with the goroutine.
		if !n.here() {
			if err := unix.Setns(n.FD, unix.CLONE_NEWNET); err != nil {
				done <- fmt.Errorf("enter the network namespace: %w", err)
				return
			}
		}
		done <- f()
	}()
	return <-done
}

// here says whether the calling thread is in the namespace already: setns(2)
// asks for CAP_SYS_ADMIN even then.
func (n InNamespace) here() bool {
	var want, have unix.Stat_t
	return unix.Fstat(n.FD, &want) == nil && unix.Stat("/proc/thread-self/ns/net", &have) == nil && want.Ino == have.Ino && want.Dev == have.Dev
}

// Tools are the programs of a variant.
type Tools struct {
	Runner Runner
	// IP is the variant of iptables and ip6tables. ebtables is always the nft
	// one where there is one: kernels leave out the legacy tables of ebtables.
	IP Variant
	// LockSeconds is how long a legacy program waits for the xtables lock.
	LockSeconds int
}

// Program names what does save or restore for a family.
func (t Tools) Program(f Family, action string) string {
	switch f {
	case IPv4:
		return "iptables-" + string(t.IP) + "-" + action
	case IPv6:
		return "ip6tables-" + string(t.IP) + "-" + action
	}
	return "ebtables-nft-" + action
}

// Apply writes a script. Each of its tables changes as a whole or not at all.
func (t Tools) Apply(ctx context.Context, s Script) error {
	if s.Empty() {
		return nil
	}
	argv := []string{t.Program(s.Family, "restore"), "--noflush"}
	if s.Family != Bridge {
		// The nft programs take the option and need no lock.
		argv = append(argv, "-w", strconv.Itoa(t.LockSeconds))
	}
	_, err := t.Runner.Run(ctx, Command{Argv: argv, Stdin: s.Text()})
	if err == nil {
		return nil
	}
	return s.blame(err)
}

// Read reads a family's tables.
func (t Tools) Read(ctx context.Context, f Family) (State, Counts, error) {
	out, err := t.Runner.Run(ctx, Command{Argv: []string{t.Program(f, "save"), "-c"}})
	if err != nil {
		return nil, nil, err
	}
	return Parse(f, out)
}

// Refused is a script that a restore program would not take, with what the
// refused lines are about, when it named them.
type Refused struct {
	Err    error
	Table  TableID
	Chains []string
	About  []any
}

func (r *Refused) Error() string {
	if len(r.Chains) == 0 {
		return r.Err.Error()
	}
	return fmt.Sprintf("%s chain %s: %v", r.Table, strings.Join(r.Chains, ", "), r.Err)
}

func (r *Refused) Unwrap() error { return r.Err }

var lineNumber = regexp.MustCompile(`line:? (\d+)`)

func (s Script) blame(err error) error {
	var exit *ExitError
	if !errors.As(err, &exit) {
		return err
	}
	r := &Refused{Err: err}
	for _, m := range lineNumber.FindAllStringSubmatch(exit.Stderr, 8) {
		n, convErr := strconv.Atoi(m[1])
		if convErr != nil || n < 1 || n > len(s.lines) || s.lines[n-1].chain == "" {
			continue
		}
		l := s.lines[n-1]
		r.Table = l.table
		r.Chains = append(r.Chains, l.chain+" ("+l.text+")")
		if l.about != nil {
			r.About = append(r.About, l.about)
		}
	}
	return r
}
