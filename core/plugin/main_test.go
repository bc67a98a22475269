package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/core/plugin/internal/process"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// The test binary is the plugin, too: linked under the name plugin-MODE it
// runs that mode. A plugin gets neither arguments nor environment.
var modes = map[string]func(){
	"good":      func() { plugin.Serve(backendDriver{}, adapterDriver{}) },
	"backend":   func() { plugin.Serve(backendDriver{}, nil) },
	"noisy":     func() { shout(os.Stdout); plugin.Serve(backendDriver{}, adapterDriver{}) },
	"junk":      func() { fmt.Println("hello, world"); fmt.Fprintln(os.Stderr, "usage: junk"); os.Exit(3) },
	"mute":      func() { time.Sleep(time.Hour) },
	"protocol7": func() { shake(fmt.Sprintf("1|7|unix|%s/s|grpc|", os.Getenv(goplugin.EnvUnixSocketDir))) },
	"core9":     func() { shake("9|0|unix|/nowhere|grpc|") },
	"tcp":       func() { shake("1|0|tcp|127.0.0.1:1|grpc|") },
	"deaf":      deaf,
	"garbage":   func() { serveRaw(&garbageBackend{}, &garbageAdapter{}) },
	"host":      host,
}

func TestMain(m *testing.M) {
	if mode, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "plugin-"); ok {
		if run := modes[strings.TrimRight(mode, "0123456789-")]; run != nil {
			run()
			return
		}
		modes[mode]()
		return
	}
	goleak.VerifyTestMain(m)
}

// shout writes what a program should not write to standard output: lines, and
// one that has no end.
func shout(w io.Writer) {
	fmt.Fprintln(w, "Loading vendor licence ... ok")
	fmt.Fprintln(w, "1|2|3")
	io.WriteString(w, strings.Repeat("x", 300<<10)+"\n")
}

func shake(line string) { fmt.Println(line); time.Sleep(time.Hour) }

// deaf listens and never answers.
func deaf() {
	path := filepath.Join(os.Getenv(goplugin.EnvUnixSocketDir), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	defer l.Close()
	shake("1|0|unix|" + path + "|grpc|")
}

// serveRaw serves what it likes to call an answer.
func serveRaw(b pb.BackendServer, a pb.AdapterServer) {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: process.Handshake,
		VersionedPlugins: process.Plugins(func(g grpc.ServiceRegistrar) {
			pb.RegisterBackendServer(g, b)
			pb.RegisterAdapterServer(g, a)
			pb.RegisterPluginServer(g, garbagePlugin{})
		}),
		GRPCServer: goplugin.DefaultGRPCServer,
	})
}

type garbagePlugin struct{ pb.UnimplementedPluginServer }

func (garbagePlugin) Describe(context.Context, *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	return &pb.DescribeResponse{Backend: &pb.Info{Name: "garbage"}, Adapter: &pb.Info{Name: "garbage"}}, nil
}

type garbageBackend struct{ pb.UnimplementedBackendServer }

func (*garbageBackend) Open(context.Context, *pb.OpenRequest) (*pb.OpenResponse, error) {
	return &pb.OpenResponse{Info: &pb.Info{Name: "garbage", Features: []string{"flows"}}}, nil
}

func (*garbageBackend) Observe(_ *pb.ObserveRequest, s grpc.ServerStreamingServer[pb.ObserveResponse]) error {
	return s.Send(&pb.ObserveResponse{Fingerprint: []byte("much too short"), Last: true})
}

func (*garbageBackend) Preflight(context.Context, *pb.PreflightRequest) (*pb.PreflightResponse, error) {
	return &pb.PreflightResponse{Checks: []*pb.Check{{Name: "x", Status: 99}}}, nil
}

// Counters ends without a last part.
func (*garbageBackend) Counters(*pb.CountersRequest, grpc.ServerStreamingServer[pb.CountersResponse]) error {
	return nil
}

// Flows never ends.
func (*garbageBackend) Flows(_ *pb.FlowsRequest, s grpc.ServerStreamingServer[pb.FlowsResponse]) error {
	m := &pb.FlowsResponse{}
	long := strings.Repeat("b", 255)
	key := &pb.NICKey{Vm: long, Mac: []byte{2, 0, 0, 0, 0, 1}}
	for range 1000 {
		m.Flows = append(m.Flows, &pb.Flow{Src: make([]byte, 16), Dst: make([]byte, 16), Bridge: long, From: key, To: key})
	}
	for {
		if err := s.Send(m); err != nil {
			return err
		}
	}
}

type garbageAdapter struct{ pb.UnimplementedAdapterServer }

func (*garbageAdapter) Open(context.Context, *pb.AdapterOpenRequest) (*pb.AdapterOpenResponse, error) {
	return &pb.AdapterOpenResponse{Info: &pb.Info{Name: "garbage"}}, nil
}

// List answers with one message that is too large.
func (*garbageAdapter) List(_ *pb.ListRequest, s grpc.ServerStreamingServer[pb.ListResponse]) error {
	return s.Send(&pb.ListResponse{Instances: []*pb.Instance{{Key: strings.Repeat("k", 8<<20)}}, Last: true})
}

// The well-behaved driver, which misbehaves when its settings say so:
//
//	fault: hang, die, panic, log, print, orphan
//	on:    the method that does it
type backendDriver struct{}

var memory = &coretest.FakeBackend{}

func (backendDriver) Info() core.Info {
	i := memory.Info()
	i.Settings = []core.SettingInfo{{Name: "fault", Type: "string"}, {Name: "on", Type: "string"}}
	return i
}

func (backendDriver) Open(_ context.Context, s core.Settings) (core.SecurityGroupBackend, error) {
	f := newFault(s)
	if err := f.strike(context.Background(), "Open"); err != nil {
		return nil, err
	}
	return &backend{memory, f}, nil
}

type backend struct {
	*coretest.FakeBackend
	fault fault
}

func (b *backend) Sync(ctx context.Context, r core.Ruleset) error {
	if err := b.fault.strike(ctx, "Sync"); err != nil {
		return err
	}
	return b.FakeBackend.Sync(ctx, r)
}

func (b *backend) Apply(ctx context.Context, d core.Delta) error {
	if err := b.fault.strike(ctx, "Apply"); err != nil {
		return err
	}
	return b.FakeBackend.Apply(ctx, d)
}

func (b *backend) Observe(ctx context.Context) (core.Observation, error) {
	if err := b.fault.strike(ctx, "Observe"); err != nil {
		return core.Observation{}, err
	}
	return b.FakeBackend.Observe(ctx)
}

func (b *backend) Preflight(context.Context) ([]core.Check, error) {
	return []core.Check{{Name: "environment", Summary: strings.Join(os.Environ(), "\n")}}, nil
}

type adapterDriver struct{}

func (adapterDriver) Info() core.Info { return core.Info{Name: "fake", Version: "2"} }

func (adapterDriver) Open(_ context.Context, s core.Settings) (core.HypervisorAdapter, error) {
	a := &coretest.FakeAdapter{}
	n, _ := s["vms"].(int)
	for i := range n {
		a.Put(core.Instance{VM: core.VM{Key: benchKey(i).VM, NICs: []core.NIC{{
			MAC: benchKey(i).MAC, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})},
			Binding: core.Binding{Bridge: "cloudbr0", Devices: []string{fmt.Sprintf("vnet%d", i)}},
		}}}})
	}
	if n == 0 {
		a.Put(core.Instance{VM: core.VM{Key: core.VMKey(fmt.Sprint("pid-", os.Getpid()))}})
	}
	return &adapter{a, newFault(s)}, nil
}

type adapter struct {
	*coretest.FakeAdapter
	fault fault
}

func (a *adapter) List(ctx context.Context) ([]core.Instance, error) {
	if err := a.fault.strike(ctx, "List"); err != nil {
		return nil, err
	}
	return a.FakeAdapter.List(ctx)
}

type fault struct{ kind, on string }

func newFault(s core.Settings) fault {
	kind, _ := s["fault"].(string)
	on, _ := s["on"].(string)
	return fault{kind, on}
}

func (f fault) strike(ctx context.Context, method string) error {
	if f.on != method {
		return nil
	}
	switch f.kind {
	case "hang":
		select {} // deaf to its context, too
	case "die":
		fmt.Fprintln(os.Stderr, "vendor core: giving up")
		os.Exit(3)
	case "panic":
		panic("index out of all range")
	case "log":
		line := []byte(strings.Repeat("y", 199) + "\n")
		for range 1 << 20 {
			os.Stderr.Write(line)
		}
	case "slog":
		slog.Warn("bridge is odd", "bridge", "cloudbr0", "ports", 3)
		slog.Debug("not for everybody")
		fmt.Fprintln(os.Stderr, `{"@level":"error","@message":"from hclog","@timestamp":"2024-01-01T00:00:00Z","vm":"i-2-7-VM"}`)
		fmt.Fprintln(os.Stderr, `{"@level":"error","@message":7}`)
	case "print":
		shout(os.Stdout)
		shout(os.NewFile(1, "stdout"))
	case "orphan":
		// A child that outlives us, and holds our standard error.
		p, err := os.StartProcess("/bin/sleep", []string{"sleep", "3600"}, &os.ProcAttr{Files: []*os.File{nil, os.Stderr, os.Stderr}})
		if err != nil {
			return err
		}
		return fmt.Errorf("child %d: %w", p.Pid, core.ErrNotReady)
	case "invalid":
		return fmt.Errorf("open: %w", &core.FieldError{Path: "settings.fault", Value: "invalid", Reason: "asked for"})
	}
	return nil
}

// install links the test binary under the name of a mode, where only root can
// write.
func install(t testing.TB, mode string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "plugin-"+mode)
	if err := os.Link(exe, path); err != nil {
		b, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// log keeps what is logged.
type log struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// config is for a plugin of the given mode, with short times.
func config(t testing.TB, mode string) (plugin.Config, *log) {
	l := &log{}
	return plugin.Config{
		Name: mode, Path: install(t, mode), AllowUnpinned: true, RunDir: filepath.Join(t.TempDir(), "r"),
		StartTimeout: time.Minute, CallTimeout: time.Minute, SyncTimeout: time.Minute,
		RestartMin: 20 * time.Millisecond, RestartMax: 200 * time.Millisecond,
		Logger: slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, l
}

// start starts a plugin and stops it after the test.
func start(t testing.TB, c plugin.Config) *plugin.Plugin {
	t.Helper()
	p, err := plugin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func openBackend(t testing.TB, p *plugin.Plugin, fault, on string) core.SecurityGroupBackend {
	t.Helper()
	d, err := p.Backend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Open(t.Context(), core.Settings{"fault": fault, "on": on})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openAdapter(t testing.TB, p *plugin.Plugin, fault, on string) core.HypervisorAdapter {
	t.Helper()
	d, err := p.Adapter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Open(t.Context(), core.Settings{"fault": fault, "on": on})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// eventually waits until f says yes.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30s", what)
		}
	}
}

func running(p *plugin.Plugin, restarts int) func() bool {
	return func() bool {
		s := p.State()
		return s.Phase == plugin.PhaseRunning && s.Restarts >= restarts
	}
}

// wantError checks an error's sentinel and what its text names.
func wantError(t testing.TB, err, sentinel error, words ...string) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Errorf("got %v, want one that is %v", err, sentinel)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// host runs a plugin and waits to be killed.
func host() {
	p, err := plugin.New(plugin.Config{Name: "good", Path: os.Getenv("PLUGIN_PATH"), AllowUnpinned: true, RunDir: os.Getenv("RUN_DIR")})
	if err == nil {
		err = p.Start(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.State().PID)
	time.Sleep(time.Hour)
}
