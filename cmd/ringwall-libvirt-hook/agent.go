package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

// agent speaks to ringwalld's socket.
type agent struct{ socket string }

// programRequest asks the agent to take a VM for present, before its adapter
// can know of it, and to enforce its policy: POST /v1/program.
type programRequest struct {
	Key    core.VMKey   `json:"key"`
	Name   string       `json:"name"`
	Kind   string       `json:"kind"`
	Claims bool         `json:"claims"` // see core.Instance
	NICs   []programNIC `json:"nics"`
}

type programNIC struct {
	MAC             core.MAC      `json:"mac"`
	Bridge          string        `json:"bridge,omitempty"`
	Devices         []string      `json:"devices,omitempty"`
	Addresses       []netip.Addr  `json:"addresses,omitempty"`
	Pairs           []programPair `json:"allowed_pairs,omitempty"`
	Groups          []string      `json:"groups,omitempty"`
	SpoofingAllowed bool          `json:"spoofing_allowed,omitempty"`
}

type programPair struct {
	Address netip.Prefix `json:"address"`
	MAC     *core.MAC    `json:"mac,omitempty"` // none: the NIC's own
}

// programmed is the answer.
type programmed struct {
	// Policy is false while nobody has said anything about the VM.
	Policy bool `json:"policy"`
}

func requestOf(in core.Instance) programRequest {
	r := programRequest{Key: in.VM.Key, Name: in.VM.Name, Kind: in.VM.Kind.String(), Claims: in.Claims}
	for _, n := range in.VM.NICs {
		p := programNIC{MAC: n.MAC, Bridge: n.Binding.Bridge, Devices: n.Binding.Devices, Addresses: n.Addresses,
			Groups: n.Groups, SpoofingAllowed: n.SpoofingAllowed}
		for _, pair := range n.Pairs {
			wire := programPair{Address: pair.Prefix}
			if pair.MAC != (core.MAC{}) {
				wire.MAC = &pair.MAC
			}
			p.Pairs = append(p.Pairs, wire)
		}
		r.NICs = append(r.NICs, p)
	}
	return r
}

// Program implements hook.Programmer. It does not wait for an agent that is not
// there: the VM would wait with it.
func (a agent) Program(ctx context.Context, in core.Instance) (hook.Outcome, error) {
	body, err := json.Marshal(requestOf(in))
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ringwall/v1/program", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
	}}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ringwalld does not answer at %s (systemctl start ringwalld): %w: %w", a.socket, err, core.ErrNotReady)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 0, fmt.Errorf("ringwalld at %s: %w: %w", a.socket, err, core.ErrNotReady)
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("ringwalld at %s: %s: %s", a.socket, resp.Status, bytes.TrimSpace(answer))
	}
	var p programmed
	if err := json.Unmarshal(answer, &p); err != nil {
		return 0, fmt.Errorf("ringwalld's answer: %w", err)
	}
	if p.Policy {
		return hook.Enforced, nil
	}
	return hook.NoPolicy, nil
}
