// jail is the first process of a PID namespace in which test daemons and
// guests run. It gives them private folders and a /sys of their network
// namespace, starts them on request, and takes them all with it when its
// standard input ends: that happens however the test ends, kill -9 included.
//
// Requests and answers are JSON lines on standard input and output; see
// package jailwire.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/ringwall/ringwall/conformance/guests/internal/jailwire"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "jail:", err)
		os.Exit(1)
	}
}

func run() error {
	var setup jailwire.Setup
	if err := json.Unmarshal([]byte(os.Args[1]), &setup); err != nil {
		return err
	}
	if err := mountAll(setup); err != nil {
		return err
	}
	// When the test is gone, an answer that nobody reads must not end the clean-up.
	signal.Ignore(syscall.SIGPIPE)
	j := &jail{exited: map[int]int{}}
	j.changed = sync.NewCond(&j.mu)
	go j.reap()
	j.serve(os.Stdin, os.Stdout)
	killAll()
	return os.RemoveAll(setup.Remove)
}

// killAll ends every other process of the namespace. They would die with this
// one anyway, but could leave files behind until then.
func killAll() {
	for unix.Kill(-1, unix.SIGKILL) == nil { // ESRCH: all gone, and reaped
		time.Sleep(time.Millisecond)
	}
}

func mountAll(setup jailwire.Setup) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range setup.Binds {
		if err := unix.Mount(m.From, m.To, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.From, m.To, err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// sysfs shows the network namespace of whoever mounts it. It comes without
	// /sys/fs/cgroup, so libvirt leaves the machine's cgroups alone.
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return nil
}

type jail struct {
	mu      sync.Mutex
	changed *sync.Cond
	exited  map[int]int // pid -> status
}

// reap collects everybody: orphans (a guest whose daemon was restarted) come to
// the first process of the namespace.
func (j *jail) reap() {
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, syscall.SIGCHLD)
	for range sigs {
		for {
			var ws unix.WaitStatus
			pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
			if err != nil || pid <= 0 {
				break
			}
			status := ws.ExitStatus()
			if ws.Signaled() {
				status = 128 + int(ws.Signal())
			}
			j.mu.Lock()
			j.exited[pid] = status
			j.changed.Broadcast()
			j.mu.Unlock()
		}
	}
}

func (j *jail) serve(in io.Reader, out io.Writer) {
	var wmu sync.Mutex
	say := func(a jailwire.Answer) {
		b, _ := json.Marshal(a)
		wmu.Lock()
		defer wmu.Unlock()
		out.Write(append(b, '\n'))
	}
	say(jailwire.Answer{}) // the mounts are there
	for s := bufio.NewScanner(in); s.Scan(); {
		var r jailwire.Request
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			continue
		}
		go func() { say(j.answer(r)) }()
	}
}

func (j *jail) answer(r jailwire.Request) (a jailwire.Answer) {
	a.ID = r.ID
	var err error
	switch {
	case r.Start != nil:
		a.PID, err = start(*r.Start)
	case r.Signal != nil:
		err = unix.Kill(r.Signal.PID, unix.Signal(r.Signal.Signal))
	case r.Wait != 0:
		a.Status = j.wait(r.Wait)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func start(s jailwire.Start) (int, error) {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	// Not os.StartProcess: it would wait for the child itself.
	return syscall.ForkExec(s.Argv[0], s.Argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   s.Env,
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

func (j *jail) wait(pid int) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		if status, ok := j.exited[pid]; ok {
			return status
		}
		j.changed.Wait()
	}
}
