// Package probe is the language that a test and the program inside a guest
// speak over a serial line: one JSON object a line, answers in any order.
//
// NICs are named by the MAC address that the hypervisor gave them, whatever
// address they use now.
package probe

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/core"
)

// Config is what a guest does from its first instruction on. It travels on the
// kernel command line, which holds 2 KiB: see Config.Encode.
type Config struct {
	// Flood starts as soon as the NIC exists, before the guest can be spoken to.
	Flood *Flood `json:"flood,omitempty"`
	Links []Link `json:"links,omitempty"`
	// Run makes the guest run this program instead of serving requests, and
	// power off when it ends.
	Run []string `json:"run,omitempty"`
}

// MaxConfig is the room for an encoded Config on the kernel command line.
const MaxConfig = 1900

// Encode makes a Config one word of a kernel command line.
func (c Config) Encode() (string, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	s := base64.RawURLEncoding.EncodeToString(b)
	if len(s) > MaxConfig {
		return "", fmt.Errorf("a guest's boot config is %d bytes, the kernel command line has room for %d; use Configure once it is up: %w", len(s), MaxConfig, core.ErrInvalid)
	}
	return s, nil
}

// DecodeConfig reads what Encode made.
func DecodeConfig(s string) (c Config, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return Config{}, err
	}
	return c, json.Unmarshal(b, &c)
}

// Link is how a NIC shall be set up. It replaces what was there.
type Link struct {
	NIC       core.MAC       `json:"nic"`
	MAC       core.MAC       `json:"mac,omitzero"` // speak with this one; zero: NIC
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"` // default routes
}

// Flood sends one frame over and over.
type Flood struct {
	NIC      core.MAC      `json:"nic"`
	Frame    []byte        `json:"frame"`
	Interval time.Duration `json:"interval,omitempty"` // zero: without a pause
}

// Send puts raw frames on the wire, in order.
type Send struct {
	NIC    core.MAC `json:"nic"`
	Frames [][]byte `json:"frames"`
}

// Capture starts to record what arrives at a NIC, from empty.
type Capture struct {
	NIC core.MAC `json:"nic"`
}

// Captured is what arrived since Capture, or since the last Captured.
type Captured struct {
	Frames [][]byte `json:"frames"`
	// Lost counts frames beyond MaxCaptured.
	Lost int `json:"lost,omitempty"`
}

// MaxCaptured frames of at most MaxCaptureBytes are kept for one NIC.
const (
	MaxCaptured     = 2048
	MaxCaptureBytes = 256
)

// Ping sends echo requests.
type Ping struct {
	To      netip.Addr    `json:"to"`
	From    netip.Addr    `json:"from,omitzero"`
	Count   int           `json:"count,omitempty"` // zero: 1
	Timeout time.Duration `json:"timeout"`         // for each
}

// PingResult counts replies.
type PingResult struct {
	Sent, Received int
}

// Dial opens a connection (udp too), sends Payload and waits for as many bytes
// back.
type Dial struct {
	Network string         `json:"network"` // tcp, udp
	To      netip.AddrPort `json:"to"`
	From    netip.AddrPort `json:"from,omitzero"`
	Payload string         `json:"payload"`
	Timeout time.Duration  `json:"timeout"`
}

// DialResult says how far it came.
type DialResult struct {
	Connected bool   // tcp: the handshake succeeded
	Reply     string // what came back
	Failure   string // why not, in the guest kernel's words
}

// OK says that the payload came back.
func (r DialResult) OK() bool { return r.Failure == "" }

// Listen serves an echo on a port until the guest ends.
type Listen struct {
	Network string `json:"network"` // tcp, udp
	Port    uint16 `json:"port"`
}

// Hello is a guest's first word.
type Hello struct {
	Kernel string
	NICs   []core.MAC // sorted as the kernel found them
}

// Counters are totals since boot of what the probe itself did.
type Counters struct {
	Flooded uint64 // frames that the kernel took
}

// Request and Response frame the language.
type Request struct {
	ID   uint64          `json:"id"`
	Op   Op              `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
}

// Response answers the Request with the same ID. ID 0 is the Hello.
type Response struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Op is a verb of the language.
type Op string

const (
	OpHello     Op = "hello"
	OpConfigure Op = "configure"
	OpSend      Op = "send"
	OpCapture   Op = "capture"
	OpCaptured  Op = "captured"
	OpPing      Op = "ping"
	OpDial      Op = "dial"
	OpListen    Op = "listen"
	OpFlood     Op = "flood"
	OpStopFlood Op = "stop-flood"
	OpCounters  Op = "counters"
)
