package enforcement

import (
	"bytes"
	"net"
	"sync"
	"testing"

	"github.com/mdlayher/packet"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"golang.org/x/sys/unix"
)

// listener takes all that arrives at a station.
type listener struct {
	mu     sync.Mutex
	frames [][]byte // without those of floods
	marked map[string]int
}

// marks are payloads of floods; only their number counts.
var marks = []string{"denied-flood", "allowed-flood"}

func listen(t *testing.T, s *lab.Station) *listener {
	t.Helper()
	l := &listener{marked: map[string]int{}}
	var conn *packet.Conn
	labtest.Check(t, s.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		conn, err = packet.Listen(i, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	}))
	labtest.Check(t, conn.SetPromiscuous(true))
	raw := labtest.Must(conn.SyscallConn())(t)
	var refused error
	labtest.Check(t, raw.Control(func(fd uintptr) {
		// What the station answers (an ICMP error quotes what it is about) has
		// not arrived.
		refused = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}))
	labtest.Check(t, refused)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			l.take(bytes.Clone(b[:n]))
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return l
}

func (l *listener) take(f []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range marks {
		if bytes.Contains(f, []byte(m)) {
			l.marked[m]++
			return
		}
	}
	l.frames = append(l.frames, f)
}

// count is how many frames of a flood have arrived.
func (l *listener) count(mark string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.marked[mark]
}

// has says whether a frame has arrived, as it was sent or padded.
func (l *listener) has(f []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, got := range l.frames {
		if bytes.HasPrefix(got, f) {
			return true
		}
	}
	return false
}
