package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ringwall/ringwall/core"
)

// stopTimeout is how long a plugin may take to close what it has open.
const stopTimeout = 3 * time.Second

// Command says what to start.
type Command struct {
	Name         string // the plugin's, for messages
	Path         string // as Resolve gave it
	SocketDir    string // a PrivateDirectory
	StartTimeout time.Duration
	Logs         *Logs
	DialOptions  []grpc.DialOption
}

// Process is a plugin that runs and can be talked to.
type Process struct {
	Conn    *grpc.ClientConn
	program *program
	client  *goplugin.Client
}

// Start runs the program and connects to it. An error leaves nothing running.
func Start(ctx context.Context, c Command) (*Process, error) {
	ctx, cancel := context.WithTimeout(ctx, c.StartTimeout)
	defer cancel()
	c.Logs.begin()
	p := &Process{}
	disarm := func() bool { return true }
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  Handshake,
		VersionedPlugins: Plugins(nil),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     c.StartTimeout,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: c.SocketDir},
		SyncStdout:       c.Logs.Stdout(),
		SyncStderr:       c.Logs.Stderr(),
		Logger:           hclog.NewNullLogger(),
		GRPCDialOptions:  c.DialOptions,
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, socketDir string) (runner.Runner, error) {
			p.program = newProgram(c.Path, cmd.Env, socketDir, c.Logs)
			// go-plugin waits for ever for a plugin that shakes hands and then
			// hangs. The plugin's death ends that.
			disarm = context.AfterFunc(ctx, func() { p.program.Kill(ctx) })
			return p.program, nil
		},
	})
	conn, err := connect(p.client)
	if !disarm() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		p.Kill()
		return nil, p.explain(ctx, c, err)
	}
	p.Conn = conn
	return p, nil
}

func connect(c *goplugin.Client) (*grpc.ClientConn, error) {
	protocol, err := c.Client()
	if err != nil {
		return nil, err
	}
	v, err := protocol.Dispense(pluginKey)
	if err != nil {
		return nil, err
	}
	return v.(*grpc.ClientConn), nil
}

// explain says in our words why the start failed; p has been killed.
func (p *Process) explain(ctx context.Context, c Command, err error) error {
	what := fmt.Sprintf("plugin %s (%s)", c.Name, c.Path)
	if p.program == nil {
		return fmt.Errorf("%s was not started: %w", what, err)
	}
	if coreVersion, protocol, ok := p.program.handshake.versions(); ok && (coreVersion != goplugin.CoreProtocolVersion || protocol != Version) {
		return fmt.Errorf("%s speaks protocol %d.%d, this release speaks %d.%d; install matching releases of ringwall and the plugin: %w",
			what, coreVersion, protocol, goplugin.CoreProtocolVersion, Version, core.ErrUnsupported)
	}
	switch state := p.program.cmd.ProcessState; {
	case state != nil && state.Exited():
		return fmt.Errorf("%s ended before it was ready: %s: %w", what, p.Why(), core.ErrNotReady)
	case ctx.Err() == context.DeadlineExceeded:
		return fmt.Errorf("%s was not ready within %s: %w", what, c.StartTimeout, core.ErrNotReady)
	case ctx.Err() != nil:
		return fmt.Errorf("%s was not started: %w", what, ctx.Err())
	}
	return fmt.Errorf("%s did not start: %w: %w", what, err, core.ErrNotReady)
}

// Health asks whether the process answers at all.
func (p *Process) Health(ctx context.Context) error {
	_, err := grpc_health_v1.NewHealthClient(p.Conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: goplugin.GRPCServiceName})
	return err
}

// Done is closed when the process has ended; Why tells then how.
func (p *Process) Done() <-chan struct{} { return p.program.done }

// Why says how the process ended and what it said last.
func (p *Process) Why() string {
	<-p.program.done
	return p.program.why()
}

// PID of the process.
func (p *Process) PID() int { return p.program.cmd.Process.Pid }

// Stop lets the plugin close what it has open, and kills it if that takes
// too long. It returns when the process has ended.
func (p *Process) Stop() {
	t := time.AfterFunc(stopTimeout, func() { p.program.Kill(context.Background()) })
	defer t.Stop()
	p.clean()
}

// Kill ends the process at once and waits for that.
func (p *Process) Kill() {
	if p.program != nil {
		p.program.Kill(context.Background())
		<-p.program.done
	}
	p.clean()
}

func (p *Process) clean() {
	p.client.Kill()
	if p.program != nil {
		os.RemoveAll(p.program.socketDir)
	}
}
