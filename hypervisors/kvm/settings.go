package kvm

import (
	"fmt"
	"net/url"
	"time"

	"github.com/ringwall/ringwall/core"
)

// Name is the adapter's name in config.
const Name = "kvm"

// Where libvirt's QEMU driver listens, by its two layouts: the modular daemon
// virtqemud, and the monolithic libvirtd (or virtproxyd, which forwards). The
// first that takes a connection is used, which is libvirt's own order.
var systemSockets = []string{"/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"}

var settingInfos = []core.SettingInfo{
	{Name: "uri", Type: "string", Default: "qemu:///system",
		Help: "libvirt's daemon on this host: qemu:///system, or qemu+unix:///system?socket=PATH"},
	{Name: "cloudstack_names", Type: "bool", Default: "false",
		Help: "VMs named r-N-, s-N-, v-N- and l-N- are system VMs (CloudStack)"},
	{Name: "timeout", Type: "duration", Default: "30s",
		Help: "how long one call to libvirt may take"},
}

type settings struct {
	sockets         []string
	cloudstackNames bool
	timeout         time.Duration
}

func parseSettings(s core.Settings) (settings, error) {
	out := settings{sockets: systemSockets, timeout: 30 * time.Second}
	for name, v := range s {
		fault := func(reason string) error {
			return &core.FieldError{Path: "hypervisor.settings." + name, Value: fmt.Sprint(v), Reason: reason}
		}
		text, isText := v.(string)
		switch name {
		case "uri":
			sockets, reason := socketsOf(text)
			if !isText || reason != "" {
				return settings{}, fault(reason)
			}
			out.sockets = sockets
		case "cloudstack_names":
			on, ok := v.(bool)
			if !ok {
				return settings{}, fault("not true or false")
			}
			out.cloudstackNames = on
		case "timeout":
			d, err := time.ParseDuration(text)
			if !isText || err != nil || d <= 0 {
				return settings{}, fault("not a duration; use a form like 30s")
			}
			out.timeout = d
		default:
			return settings{}, fault("no such setting; " + Name + " knows uri, cloudstack_names, timeout")
		}
	}
	return out, nil
}

// socketsOf gives the sockets of a URI, or a reason why not.
func socketsOf(uri string) (sockets []string, reason string) {
	const use = "use qemu:///system, or qemu+unix:///system?socket=PATH"
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return nil, use
	case u.Host != "" || u.User != nil || u.Scheme != "qemu" && u.Scheme != "qemu+unix":
		return nil, "only a QEMU driver on this host, where the taps are, can be watched; " + use
	case u.Path != "/system":
		return nil, "unprivileged VMs have no taps on a bridge; " + use
	}
	query := u.Query()
	socket := query.Get("socket")
	query.Del("socket")
	if len(query) > 0 || u.Fragment != "" {
		return nil, "unknown URI parameter; " + use
	}
	if socket != "" {
		return []string{socket}, ""
	}
	return systemSockets, ""
}
