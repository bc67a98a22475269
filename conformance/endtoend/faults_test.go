package endtoend

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/core/state"
	"github.com/ringwall/ringwall/docs/examples"
)

// exitFailure is what a command ends with when the host would not.
const exitFailure = 1

// applied is a site that enforces the example.
func applied(t *testing.T, run string) *site {
	t.Helper()
	s := newSite(t, run)
	s.start(t)
	s.write(t, "web-tier.yaml", string(examples.WebTier))
	s.must(t, []string{"apply", "-f", s.path("web-tier.yaml")})
	return s
}

// A damaged state file: the agent refuses to start, names the file and the way
// out, and what is enforced stays.
func TestDamagedState(t *testing.T) {
	s := applied(t, "in_process")
	s.stop(t)
	file := filepath.Join(s.dir, "state", state.FileName)
	content := labtest.Must(os.ReadFile(file))(t)
	for i := len(content) / 4; i < len(content); i += 64 {
		content[i] ^= 0xff
	}
	labtest.Check(t, os.WriteFile(file, content, 0o600))
	var said bytes.Buffer
	agent := exec.Command(filepath.Join(s.bin, "ringwalld"), "--config", s.path("config.yaml"))
	agent.Stderr = &said
	err := s.host.Do(agent.Run)
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitFailure {
		t.Errorf("with a damaged state ringwalld ended with %v", err)
	}
	for _, want := range []string{file, "damaged"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &said)
		}
	}
	if got := labtest.Must(os.ReadFile(file))(t); !bytes.Equal(got, content) {
		t.Error("it wrote to the file")
	}
	s.reach(t, lab.TCP(5432), postgres)
}

// A full disk: a change is refused, and neither the state nor the kernel has any
// of it. With room again it goes through.
func TestFullDisk(t *testing.T) {
	s := newSite(t, "in_process")
	folder := s.path("state")
	labtest.Check(t, unix.Mount("tmpfs", folder, "tmpfs", 0, "size=1m,mode=700"))
	t.Cleanup(func() { labtest.Check(t, unix.Unmount(folder, unix.MNT_DETACH)) })
	s.start(t)
	s.write(t, "web-tier.yaml", string(examples.WebTier))
	s.must(t, []string{"apply", "-f", s.path("web-tier.yaml")})
	ballast := filepath.Join(folder, "ballast")
	f := labtest.Must(os.Create(ballast))(t)
	for err := error(nil); err == nil; {
		_, err = f.Write(make([]byte, 4096))
	}
	labtest.Check(t, f.Close())

	rules := rule5432
	for port := range 4000 { // more than there is room for
		rules += strings.Replace(rule5432, "5432", strconv.Itoa(10000+port), 1)
	}
	s.write(t, "big.yaml", s.edited(rule5432, rules))
	before := ask[api.Status](t, s, exitOK, "status")
	s.ends(t, exitFailure, []string{"apply", "-f", s.path("big.yaml")}, "no space left on device", filepath.Join(folder, state.FileName))
	after := ask[api.Status](t, s, exitOK, "status")
	if after.Revision != before.Revision || after.Points[0].Enforced != before.Points[0].Enforced || !after.Points[0].InSync {
		t.Errorf("status was %+v, is %+v", before.Points, after.Points)
	}
	s.must(t, []string{"diff", "-f", s.path("web-tier.yaml")})
	s.reach(t, lab.TCP(5432), postgres)

	labtest.Check(t, os.Remove(ballast))
	s.must(t, []string{"apply", "-f", s.path("big.yaml")}, "updated")
}

// A plugin that is killed comes back and adopts what is enforced; the traffic
// and the other plugin do not notice.
func TestKilledPlugin(t *testing.T) {
	s := applied(t, "plugin")
	flow := labtest.Must(lab.StartFlow(t.Context(), lab.FlowSpec{Client: s.at["web1"], Server: s.at["db1"], Service: lab.TCP(5432)}))(t)
	defer flow.Stop()
	before := s.plugins(t)
	for _, name := range []string{"nftables", "netns"} {
		labtest.Check(t, syscall.Kill(before[name].PID, syscall.SIGKILL))
		s.eventually(t, name, func() error {
			if p := s.plugins(t)[name]; p.PID == before[name].PID || p.Restarts != 1 {
				return errors.New("is not restarted")
			}
			_, err := s.ringwall(exitOK, "verify")
			return err
		})
		s.goesOn(t, flow, true)
		if name == "nftables" && s.plugins(t)["netns"].PID != before["netns"].PID {
			t.Error("the other plugin was restarted as well")
		}
	}
	s.write(t, "changed.yaml", s.edited(rule5432, ""))
	s.must(t, []string{"apply", "-f", s.path("changed.yaml")})
	s.goesOn(t, flow, false)
}

func (s *site) plugins(t *testing.T) map[string]plugin.State {
	t.Helper()
	out := map[string]plugin.State{}
	for _, p := range ask[[]plugin.State](t, s, exitOK, "plugin", "list") {
		out[p.Name] = p
	}
	return out
}
