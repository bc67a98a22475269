package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/process"
	"github.com/ringwall/ringwall/core/plugin/internal/rpc"
)

// Plugin is a program and its supervision. Its methods may be called from
// several goroutines.
type Plugin struct {
	cfg  Config
	log  *slog.Logger
	logs *process.Logs

	life context.Context // ends with Stop
	stop context.CancelFunc
	done sync.WaitGroup // the supervisor

	starting sync.Mutex // held while the first process is started

	mu      sync.Mutex
	session *session // nil while nothing runs
	starts  int
	state   State
}

// session is one process from its start to its death.
type session struct {
	number  int
	process *process.Process
	client  *rpc.Client
	serves  rpc.Description
	failed  chan error // what the calls found; one is enough
}

func (s *session) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// New checks c and starts nothing.
func New(c Config) (*Plugin, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	p := &Plugin{cfg: c, log: c.Logger.With("plugin", c.Name)}
	p.logs = process.NewLogs(p.log)
	p.life, p.stop = context.WithCancel(context.Background())
	p.state = State{Name: c.Name, Path: c.Path, Protocol: process.Version, Phase: PhaseNew, Since: time.Now()}
	return p, nil
}

// Start starts the program unless it was started before, and returns when it
// has told what it serves. The process runs in the network namespace of the
// calling thread, and so do those that follow it. After an error Start may be called again; after a
// success the plugin is restarted whenever need be, until Stop.
func (p *Plugin) Start(ctx context.Context) error {
	p.starting.Lock()
	defer p.starting.Unlock()
	p.mu.Lock()
	started, stopped := p.starts > 0, p.life.Err() != nil
	p.mu.Unlock()
	switch {
	case stopped:
		return p.notRunning()
	case started:
		return nil
	}
	ns, err := callersNamespace()
	if err != nil {
		return err
	}
	s, err := p.launch(ctx)
	if err != nil {
		ns.close()
		p.set(func(s *State) { s.LastError = err.Error() })
		return err
	}
	p.done.Go(func() {
		defer ns.close()
		p.supervise(s, ns)
	})
	return nil
}

// Stop ends the plugin, giving it a moment to close what it has open, and
// returns when the process is gone. What is enforced stays enforced.
func (p *Plugin) Stop() {
	p.stop()
	p.starting.Lock() // a start that was under way has ended now
	defer p.starting.Unlock()
	p.done.Wait()
	p.logs.Flush()
	p.set(func(s *State) { s.Phase, s.PID, s.Since = PhaseStopped, 0, time.Now() })
}

// State tells how the plugin is.
func (p *Plugin) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

func (p *Plugin) set(f func(*State)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.state)
}

// launch starts one process and makes it the current session.
func (p *Plugin) launch(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartTimeout)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	// Before every start: an upgrade puts a new file there.
	program, err := p.cfg.Inspect()
	p.set(func(s *State) { s.SHA256, s.Pinned = program.SHA256, program.Pinned })
	if err != nil {
		return nil, err
	}
	if err := process.PrivateDirectory(p.cfg.RunDir); err != nil {
		return nil, fmt.Errorf("plugin %s: %w", p.cfg.Name, err)
	}
	proc, err := process.Start(ctx, process.Command{
		Name: p.cfg.Name, Path: program.Path, SocketDir: p.cfg.RunDir, StartTimeout: p.cfg.StartTimeout,
		Logs: p.logs, DialOptions: rpc.DialOptions(),
	})
	if err != nil {
		return nil, err
	}
	s := &session{process: proc, failed: make(chan error, 1)}
	s.client = rpc.NewClient(proc.Conn, rpc.Options{
		Plugin: p.cfg.Name, CallTimeout: p.cfg.CallTimeout, SyncTimeout: p.cfg.SyncTimeout,
		Failed: s.fail, Logger: p.log,
	})
	if s.serves, err = s.client.Describe(ctx); err != nil {
		proc.Kill()
		return nil, err
	}
	p.mu.Lock()
	p.starts++
	s.number = p.starts
	p.session = s
	p.state.Phase, p.state.PID, p.state.Since, p.state.Restarts = PhaseRunning, proc.PID(), time.Now(), p.starts-1
	p.state.Backend, p.state.Adapter = "", ""
	if i := s.serves.Adapter; i != nil {
		p.state.Adapter, p.state.Version = i.Name, i.Version
	}
	if i := s.serves.Backend; i != nil {
		p.state.Backend, p.state.Version = i.Name, i.Version
	}
	p.mu.Unlock()
	p.log.Info("plugin started", "path", program.Path, "sha256", program.SHA256, "pid", proc.PID(), "version", p.State().Version)
	return s, nil
}

// supervise keeps a process running until Stop.
func (p *Plugin) supervise(s *session, ns namespace) {
	wait := p.cfg.RestartMin
	for {
		began := time.Now()
		reason := p.watch(s)
		p.mu.Lock()
		p.session = nil
		p.mu.Unlock()
		if p.life.Err() != nil {
			s.process.Stop()
			return
		}
		s.process.Kill()
		p.died(reason)
		if time.Since(began) >= p.cfg.RestartMax {
			wait = p.cfg.RestartMin
		}
		for {
			select {
			case <-time.After(wait):
			case <-p.life.Done():
				return
			}
			wait = min(2*wait, p.cfg.RestartMax)
			next, err := p.relaunch(ns)
			if err == nil {
				s = next
				break
			}
			if p.life.Err() != nil {
				return
			}
			p.died(err)
		}
	}
}

func (p *Plugin) relaunch(ns namespace) (*session, error) {
	if err := ns.enter(); err != nil {
		return nil, fmt.Errorf("plugin %s: %w", p.cfg.Name, err)
	}
	return p.launch(p.life)
}

func (p *Plugin) died(reason error) {
	p.log.Error("plugin is restarted; what is enforced stays enforced meanwhile", "error", reason)
	p.set(func(s *State) {
		s.Phase, s.PID, s.Since, s.LastError = PhaseRestarting, 0, time.Now(), reason.Error()
	})
}

// watch returns when the process is of no use any more, and says why.
func (p *Plugin) watch(s *session) error {
	tick := time.NewTicker(p.cfg.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-p.life.Done():
			return nil
		case <-s.process.Done():
			return fmt.Errorf("plugin %s ended: %s", p.cfg.Name, s.process.Why())
		case err := <-s.failed:
			// A broken connection is mostly the first sign of a death.
			select {
			case <-s.process.Done():
				return fmt.Errorf("plugin %s ended: %s", p.cfg.Name, s.process.Why())
			case <-time.After(100 * time.Millisecond):
				return err
			}
		case <-tick.C:
			ctx, cancel := context.WithTimeout(p.life, p.cfg.Heartbeat)
			go func() {
				defer cancel()
				if err := s.process.Health(ctx); err != nil && p.life.Err() == nil {
					s.fail(fmt.Errorf("plugin %s does not answer: %w", p.cfg.Name, err))
				}
			}()
		}
	}
}

// current is the session to talk to, or why there is none.
func (p *Plugin) current() (*session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == nil {
		return nil, p.notRunningLocked()
	}
	return p.session, nil
}

func (p *Plugin) notRunning() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notRunningLocked()
}

func (p *Plugin) notRunningLocked() error {
	switch {
	case p.life.Err() != nil:
		return fmt.Errorf("plugin %s was stopped: %w", p.cfg.Name, core.ErrNotReady)
	case p.state.LastError != "":
		return fmt.Errorf("plugin %s does not run and is tried again (%s): %w", p.cfg.Name, p.state.LastError, core.ErrNotReady)
	}
	return fmt.Errorf("plugin %s does not run: %w", p.cfg.Name, core.ErrNotReady)
}
