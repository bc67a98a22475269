package xapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Ref is an opaque reference to an object. Null refers to none.
type Ref string

// Null is the reference to nothing.
const Null Ref = "OpaqueRef:NULL"

// Int is an integer, which XAPI writes as a string of digits or as a number.
type Int int64

func (i *Int) UnmarshalJSON(b []byte) error {
	s := string(bytes.Trim(b, `"`))
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is no integer", s)
	}
	*i = Int(n)
	return nil
}

// VM is a VM's record, as far as it is used here.
type VM struct {
	UUID            string            `json:"uuid"`
	Name            string            `json:"name_label"`
	PowerState      string            `json:"power_state"`
	IsTemplate      bool              `json:"is_a_template"`
	IsSnapshot      bool              `json:"is_a_snapshot"`
	IsControlDomain bool              `json:"is_control_domain"`
	ResidentOn      Ref               `json:"resident_on"`
	Domid           Int               `json:"domid"`
	VIFs            []Ref             `json:"VIFs"`
	OtherConfig     map[string]string `json:"other_config"`
}

// Present says whether it is a guest that runs, or is paused.
func (v VM) Present() bool {
	return !v.IsTemplate && !v.IsSnapshot && !v.IsControlDomain && (v.PowerState == "Running" || v.PowerState == "Paused") && v.Domid >= 0
}

// VIF is a network card's record.
type VIF struct {
	UUID        string            `json:"uuid"`
	Device      string            `json:"device"` // 0, 1, ...
	Network     Ref               `json:"network"`
	VM          Ref               `json:"VM"`
	MAC         string            `json:"MAC"`
	Attached    bool              `json:"currently_attached"`
	LockingMode string            `json:"locking_mode"` // network_default, locked, unlocked, disabled; empty before 6.1
	IPv4Allowed []string          `json:"ipv4_allowed"`
	IPv6Allowed []string          `json:"ipv6_allowed"`
	OtherConfig map[string]string `json:"other_config"`
}

// Network is a network's record.
type Network struct {
	UUID               string `json:"uuid"`
	Name               string `json:"name_label"`
	Bridge             string `json:"bridge"`
	DefaultLockingMode string `json:"default_locking_mode"` // unlocked, disabled
}

// Host is a host's record.
type Host struct {
	UUID            string            `json:"uuid"`
	Name            string            `json:"name_label"`
	SoftwareVersion map[string]string `json:"software_version"`
	OtherConfig     map[string]string `json:"other_config"`
}

// Records reads every record of a class: VM, VIF, network, host.
func Records[T VM | VIF | Network | Host](ctx context.Context, c *Client) (map[Ref]T, error) {
	var out map[Ref]T
	var class string
	switch any(out).(type) {
	case map[Ref]VM:
		class = "VM"
	case map[Ref]VIF:
		class = "VIF"
	case map[Ref]Network:
		class = "network"
	case map[Ref]Host:
		class = "host"
	}
	err := c.Call(ctx, class+".get_all_records", &out)
	return out, err
}

// ThisHost is the host at which the client has logged in.
func (c *Client) ThisHost(ctx context.Context) (Ref, error) {
	var session string
	var out Ref
	_, session, err := c.login(ctx)
	if err != nil {
		return "", err
	}
	err = c.Call(ctx, "session.get_this_host", &out, session)
	return out, err
}

// CallPlugin runs a function of a plugin in a host's dom0 and gives what it
// answers.
func (c *Client) CallPlugin(ctx context.Context, host Ref, plugin, function string, args map[string]string) (string, error) {
	if args == nil {
		args = map[string]string{}
	}
	var out string
	err := c.Call(ctx, "host.call_plugin", &out, host, plugin, function, args)
	return out, err
}

// PutOtherConfig sets a key of an object's other_config; an empty value takes
// it away. class is VM or host. Other keys are not touched.
func (c *Client) PutOtherConfig(ctx context.Context, class string, ref Ref, key, value string) error {
	if err := c.Call(ctx, class+".remove_from_other_config", nil, ref, key); err != nil || value == "" {
		return err
	}
	return c.Call(ctx, class+".add_to_other_config", nil, ref, key, value)
}

// Event is one change of an object.
type Event struct {
	Class     string          `json:"class"`     // vm, vif, network, host
	Operation string          `json:"operation"` // add, mod, del
	Ref       Ref             `json:"ref"`
	Snapshot  json.RawMessage `json:"snapshot"` // the record, unless del
}

// Batch is what event.from answers.
type Batch struct {
	Events []Event `json:"events"`
	Token  string  `json:"token"`
}

// Events waits for changes of classes since token, up to wait; an empty token
// gives every object there is. No events is no error.
//
// Where the session had ended or the token means nothing any more (XAPI has
// restarted, the master has changed) restarted says so: begin anew with an empty
// token.
func (c *Client) Events(ctx context.Context, classes []string, token string, wait time.Duration) (b Batch, restarted bool, err error) {
	call := c.callFor
	if token != "" {
		call = c.callOnce
	}
	err = call(ctx, wait+c.o.Timeout, "event.from", &b, classes, token, wait.Seconds())
	var x *Error
	if token != "" && errors.As(err, &x) {
		switch x.Code {
		case "SESSION_INVALID", "HOST_IS_SLAVE", "EVENTS_LOST", "EVENT_FROM_TOKEN_PARSE_FAILURE":
			return Batch{}, true, nil
		}
	}
	return b, false, err
}
