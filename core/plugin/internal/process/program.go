package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// program is go-plugin's Runner over a process of ours. go-plugin's own one is
// not used because
//   - it gives the host's standard input to the plugin;
//   - it parses standard error in a way that a line such as {"@message":1}
//     panics the host (v1.8.0, parseJSON);
//   - a first line on standard output that is no handshake ends the start, and
//     one above 64 KiB later on ends the reading of the pipe, and so blocks
//     the plugin;
//   - it does not see a plugin's death while a child of the plugin holds one
//     of the pipes.
type program struct {
	cmd       *exec.Cmd
	logs      *Logs
	socketDir string
	stdin     io.Closer // its end tells the plugin that the host is gone
	handshake *handshake

	mu     sync.Mutex
	exited bool
	done   chan struct{}
	err    error // of Wait; read it after done
}

// newProgram prepares path to be run in a process group of its own, with nothing but
// the variables given.
func newProgram(path string, env []string, socketDir string, logs *Logs) *program {
	p := &program{
		cmd:       &exec.Cmd{Path: path, Args: []string{path}, Env: env, Dir: "/"},
		logs:      logs,
		socketDir: socketDir,
		handshake: newHandshake(logs),
		done:      make(chan struct{}),
	}
	// A group of its own: an interrupt at the terminal is for the agent, and
	// a plugin's children end with it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stdout = p.handshake
	p.cmd.Stderr = logs.Stderr()
	// A child that survived may hold the pipes open.
	p.cmd.WaitDelay = time.Second
	return p
}

func (p *program) Start(context.Context) error {
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	p.stdin = stdin
	p.mu.Lock()
	err = p.cmd.Start()
	p.mu.Unlock()
	if err != nil {
		p.handshake.close()
		close(p.done)
		return err
	}
	go p.reap()
	return nil
}

// reap kills what is left of the group before the process is waited for: as
// long as it is a zombie, its number cannot be another's.
func (p *program) reap() {
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
	p.exited = true
	p.mu.Unlock()
	p.err = p.cmd.Wait()
	p.cmd.Stderr.(*LineWriter).Flush()
	p.logs.Flush()
	p.handshake.close()
	close(p.done)
}

func (p *program) Wait(context.Context) error {
	<-p.done
	return p.err
}

func (p *program) Kill(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd.Process == nil || p.exited {
		return nil
	}
	return unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
}

func (p *program) Stdout() io.ReadCloser { return p.handshake.pipe }

// Stderr is empty: Logs has it.
func (p *program) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

func (p *program) Name() string { return p.cmd.Path }

func (p *program) ID() string {
	if p.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(p.cmd.Process.Pid)
}

func (p *program) Diagnose(context.Context) string { return "" }

// PluginToHost takes a socket in the plugin's own directory and nothing else:
// the host connects to where this says.
func (p *program) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || filepath.Dir(filepath.Clean(addr)) != filepath.Clean(p.socketDir) {
		return "", "", fmt.Errorf("it listens on %s %q instead of a socket in its own directory", network, addr)
	}
	return network, addr, nil
}

func (p *program) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

// why says why the process ended, when it has.
func (p *program) why() string {
	var b strings.Builder
	if s := p.cmd.ProcessState; s != nil {
		b.WriteString(s.String())
	} else {
		b.WriteString("it could not be waited for")
	}
	if w := p.logs.LastWords(); w != "" {
		b.WriteString("; it last said: " + w)
	}
	return b.String()
}

// handshake passes the first line that looks like a handshake on to go-plugin
// and takes all else for stray output.
type handshake struct {
	pipe  *io.PipeReader
	out   *io.PipeWriter
	lines *LineWriter
	logs  *Logs

	mu   sync.Mutex
	line string
}

func newHandshake(logs *Logs) *handshake {
	h := &handshake{logs: logs}
	h.pipe, h.out = io.Pipe()
	h.lines = &LineWriter{line: h.take}
	return h
}

func (h *handshake) Write(p []byte) (int, error) { return h.lines.Write(p) }

func (h *handshake) take(line []byte) {
	h.mu.Lock()
	had := h.line != ""
	mine := !had && looksLikeHandshake(line)
	if mine {
		h.line = string(line)
	}
	h.mu.Unlock()
	if !mine {
		h.logs.Stray(line)
		return
	}
	// go-plugin may have given up: then nobody reads, and close ends this.
	io.WriteString(h.out, string(line)+"\n")
	h.out.Close()
}

// close lets go-plugin see the end of standard output, and ends a write that
// it does not read.
func (h *handshake) close() {
	h.out.Close()
	h.pipe.Close()
}

// looksLikeHandshake: CORE|PROTOCOL|NETWORK|ADDRESS[|...], the first two
// numbers.
func looksLikeHandshake(line []byte) bool {
	parts := bytes.SplitN(line, []byte("|"), 4)
	if len(parts) < 4 {
		return false
	}
	for _, p := range parts[:2] {
		if _, err := strconv.Atoi(string(p)); err != nil {
			return false
		}
	}
	return true
}

// versions are the two numbers of the handshake that came, if one did.
func (h *handshake) versions() (coreVersion, protocol int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	parts := strings.SplitN(h.line, "|", 3)
	if len(parts) < 3 {
		return 0, 0, false
	}
	coreVersion, _ = strconv.Atoi(parts[0])
	protocol, _ = strconv.Atoi(parts[1])
	return coreVersion, protocol, true
}
