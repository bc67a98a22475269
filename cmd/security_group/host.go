package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/source/cloudstack"
)

// lockPoll is how often a held lock is tried again.
const lockPoll = 20 * time.Millisecond

// lock keeps the stock script out, which takes the same file for itself alone.
// Calls of this command share it: what they change, ringwalld serialises. The
// stock script goes on without the lock after 15 seconds; this one fails.
func lock(ctx context.Context, path string, wait time.Duration) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil // no folder for it: nobody else can take it
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		case time.Now().After(deadline):
			f.Close()
			return nil, fmt.Errorf("%s has been held for %s, by CloudStack's own script?: %w", path, wait, core.ErrConflict)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// callLog is a line for each call, in the file where the stock script has its
// own. A call is done without it.
type callLog struct{ w io.WriteCloser }

func openLog(path string) callLog {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return callLog{}
	}
	return callLog{f}
}

func (l callLog) close() {
	if l.w != nil {
		_ = l.w.Close()
	}
}

// call logs a call and what became of it. One write for each line: other
// processes write there, too.
func (l callLog) call(args []string, a cloudstack.Answer, err error, took time.Duration) {
	if l.w == nil {
		return
	}
	words := make([]string, len(args))
	for i, w := range args {
		words[i] = clip(w)
	}
	outcome := "done"
	switch {
	case err != nil:
		outcome = "FAILED: " + oneLine(err.Error())
	case a.Exit != 0:
		outcome = fmt.Sprintf("exit %d: %s", a.Exit, oneLine(a.Text))
	}
	l.line("%s: %s in %s", strings.Join(words, " "), outcome, took.Round(time.Millisecond))
	for _, w := range a.Warnings {
		l.line("%s", oneLine(w))
	}
}

func (l callLog) line(format string, args ...any) {
	_, _ = io.WriteString(l.w, time.Now().Format("2006-01-02 15:04:05,000")+" - "+fmt.Sprintf(format, args...)+"\n")
}

// clip shows a word of a command line: rules may be 128 KiB long.
func clip(w string) string {
	if len(w) > 500 {
		w = fmt.Sprintf("%s...(%d bytes)", w[:500], len(w))
	}
	if strings.ContainsAny(w, " \t\n\r'\"") || w == "" {
		return fmt.Sprintf("%q", w)
	}
	return w
}

// roomFor makes a pipe that is standard output large enough for what will be
// written: the agent reads only after the process has ended.
func roomFor(w io.Writer, size int) {
	const usual = 64 << 10
	f, ok := w.(*os.File)
	if !ok || size <= usual {
		return
	}
	// Not a pipe, or more than the system gives: it is written all the same.
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, size)
}
