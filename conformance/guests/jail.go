package guests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/ringwall/ringwall/conformance/guests/internal/jailwire"
)

// Namespace is a network namespace to run in; lab.Namespace is one.
type Namespace interface {
	// Do runs f on a thread inside the namespace.
	Do(f func() error) error
}

// jail runs daemons and guests in a PID and a mount namespace, and in the
// network namespace of the caller's choice. All of them end with it, and it
// ends with this process.
type jail struct {
	dir    string // private folder; a guest's sockets and logs are below
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer

	wmu sync.Mutex

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan jailwire.Answer
	done    chan struct{} // the jail's output ended
}

// maxJailDir leaves room in a socket's 108 bytes for what comes below.
const maxJailDir = 60

// newJail makes the jail. covers are machine folders that programs inside see
// empty, under dir/<cover>. Without a namespace it gets one of its own.
func newJail(ctx context.Context, ns Namespace, covers []string) (*jail, error) {
	dir, err := os.MkdirTemp("", "guests-")
	if err == nil && len(dir) > maxJailDir {
		os.Remove(dir)
		dir, err = os.MkdirTemp("/tmp", "guests-")
	}
	if err != nil {
		return nil, err
	}
	j := &jail{dir: dir, waiting: map[uint64]chan jailwire.Answer{}, done: make(chan struct{})}
	if err := j.start(ctx, ns, covers); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start the guests' jail (this needs root): %w", err)
	}
	return j, nil
}

func (j *jail) start(ctx context.Context, ns Namespace, covers []string) error {
	setup := jailwire.Setup{Remove: j.dir}
	for _, c := range covers {
		own := filepath.Join(j.dir, c)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return err
		}
		setup.Binds = append(setup.Binds, jailwire.Bind{From: own, To: c})
	}
	arg, err := json.Marshal(setup)
	if err != nil {
		return err
	}
	bin := filepath.Join(j.dir, "jail")
	if err := buildStatic(ctx, bin, "./internal/jail"); err != nil {
		return err
	}
	j.cmd = exec.Command(bin, string(arg))
	j.cmd.Stderr = &j.stderr
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if j.stdin, err = j.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := j.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	launch := j.cmd.Start
	if ns == nil {
		j.cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
	} else {
		// A child is born into the namespace of the thread that forks.
		launch = func() error { return ns.Do(j.cmd.Start) }
	}
	if err := launch(); err != nil {
		return err
	}
	_, ready := j.register()
	j.mu.Lock()
	j.waiting[0] = ready
	j.mu.Unlock()
	go j.read(stdout)
	select {
	case <-ready:
		return nil
	case <-j.done:
		j.cmd.Wait()
		return errors.New(j.stderr.String())
	case <-ctx.Done():
		j.close()
		return ctx.Err()
	}
}

func (j *jail) read(out io.Reader) {
	defer close(j.done)
	for s := bufio.NewScanner(out); s.Scan(); {
		var a jailwire.Answer
		if json.Unmarshal(s.Bytes(), &a) != nil {
			continue
		}
		j.mu.Lock()
		ch := j.waiting[a.ID]
		delete(j.waiting, a.ID)
		j.mu.Unlock()
		if ch != nil {
			ch <- a
		}
	}
}

func (j *jail) register() (uint64, chan jailwire.Answer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next++
	ch := make(chan jailwire.Answer, 1)
	j.waiting[j.next] = ch
	return j.next, ch
}

func (j *jail) call(ctx context.Context, r jailwire.Request) (jailwire.Answer, error) {
	id, answer := j.register()
	r.ID = id
	b, err := json.Marshal(r)
	if err != nil {
		return jailwire.Answer{}, err
	}
	j.wmu.Lock()
	_, err = j.stdin.Write(append(b, '\n'))
	j.wmu.Unlock()
	if err != nil {
		return jailwire.Answer{}, fmt.Errorf("the guests' jail is gone: %w", err)
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-j.done:
		return jailwire.Answer{}, errors.New("the guests' jail is gone: " + j.stderr.String())
	case <-ctx.Done():
		return jailwire.Answer{}, ctx.Err()
	}
}

// run starts a program; its output is appended to log, a path inside.
func (j *jail) run(ctx context.Context, log string, argv ...string) (pid int, err error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return 0, err
	}
	argv = append([]string{path}, argv[1:]...)
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}
	a, err := j.call(ctx, jailwire.Request{Start: &jailwire.Start{Argv: argv, Env: env, Log: log}})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return a.PID, nil
}

func (j *jail) signal(ctx context.Context, pid int, s syscall.Signal) error {
	_, err := j.call(ctx, jailwire.Request{Signal: &jailwire.Signal{PID: pid, Signal: int(s)}})
	return err
}

// wait returns the exit status, or 128 + signal.
func (j *jail) wait(ctx context.Context, pid int) (int, error) {
	a, err := j.call(ctx, jailwire.Request{Wait: pid})
	return a.Status, err
}

// path is where a file inside is seen from outside.
func (j *jail) path(inside string) string { return filepath.Join(j.dir, inside) }

// close ends everything inside. The jail removes its folder itself; once more
// from here, in case it was killed.
func (j *jail) close() error {
	j.stdin.Close()
	select {
	case <-j.done:
	case <-time.After(5 * time.Second):
		j.cmd.Process.Kill()
		<-j.done
	}
	j.cmd.Wait() // killed is fine
	return os.RemoveAll(j.dir)
}
