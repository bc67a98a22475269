package plugin

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/process"
	"github.com/ringwall/ringwall/core/plugin/internal/rpc"
)

// systemPath is for drivers that run a program of the system: the host hands
// no environment on.
const systemPath = "/usr/sbin:/usr/bin:/sbin:/bin"

// closeTimeout is for what a driver has open when the host is gone.
const closeTimeout = 2 * time.Second

// Serve is the whole main of a plugin. It serves a backend driver, an adapter
// driver or both (nil is none) to the ringwall agent that started this
// process, and returns when the agent is done with it; if the agent dies, the
// process exits. Log with slog or to standard error: it ends up in the
// agent's log, and so does what is printed to standard output once Serve runs;
// before that, standard output belongs to the handshake.
//
// Started by hand, it says what it is and exits with status 2.
func Serve(backend core.BackendDriver, adapter core.AdapterDriver) {
	if os.Getenv(process.Handshake.MagicCookieKey) != process.Handshake.MagicCookieValue {
		fmt.Fprintln(os.Stderr, introduce(backend, adapter))
		os.Exit(2)
	}
	if os.Getenv("PATH") == "" {
		os.Setenv("PATH", systemPath)
	}
	stderr := os.Stderr
	slog.SetDefault(slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	server := rpc.NewServer(backend, adapter)
	// go-plugin sends what is written to os.Stdout and os.Stderr through gRPC,
	// a message a line. A plugin that logs much would keep both processes busy
	// with that, while the pipe that is there costs next to nothing.
	server.Ready = func() { os.Stdout, os.Stderr = stderr, stderr }
	go func() {
		awaitHost(os.Stdin)
		signal.Ignore(syscall.SIGPIPE) // whoever logs now must not end this
		closing := make(chan struct{})
		go func() { server.Close(); close(closing) }()
		select {
		case <-closing:
		case <-time.After(closeTimeout):
		}
		// The host would have removed it.
		if dir := os.Getenv(goplugin.EnvUnixSocketDir); dir != "" {
			os.RemoveAll(dir)
		}
		os.Exit(0)
	}()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  process.Handshake,
		VersionedPlugins: process.Plugins(server.Register),
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(o, rpc.ServerOptions()...)...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr, JSONFormat: true}),
	})
	server.Close()
}

// awaitHost returns when the host has died: it holds the other end of our
// standard input and never writes. Unlike a signal on the parent's death, that
// is not tied to the thread that forked (prctl(2), PR_SET_PDEATHSIG).
func awaitHost(stdin io.Reader) {
	io.Copy(io.Discard, stdin)
}

func introduce(backend core.BackendDriver, adapter core.AdapterDriver) string {
	var b strings.Builder
	b.WriteString("This is a ringwall plugin")
	if backend != nil {
		i := backend.Info()
		fmt.Fprintf(&b, "; it serves backend %s %s", i.Name, i.Version)
	}
	if adapter != nil {
		i := adapter.Info()
		fmt.Fprintf(&b, "; it serves adapter %s %s", i.Name, i.Version)
	}
	fmt.Fprintf(&b, " by protocol %d.\nThe agent starts it: name its path and its SHA-256 sum under plugins: in the config.", process.Version)
	return b.String()
}
