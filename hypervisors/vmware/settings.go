package vmware

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Name is the name of the adapter and of the backend in config.
const Name = "vmware"

var connectionInfos = []core.SettingInfo{
	{Name: "url", Type: "string", Required: true, Help: "vCenter: https://HOST, without user and password"},
	{Name: "user", Type: "string", Required: true, Help: "vCenter user, as in ringwall@vsphere.local"},
	{Name: "password_file", Type: "string", Help: "file that holds the user's password; read at each login"},
	{Name: "password_env", Type: "string", Help: "environment variable that holds it instead (run: in_process only)"},
	{Name: "thumbprint", Type: "string", Help: "SHA-256 of vCenter's certificate, pinned; else it is verified"},
	{Name: "ca_file", Type: "string", Help: "PEM file of the authorities that vCenter's certificate is verified with; else the system's"},
	{Name: "switch", Type: "string", Required: true, Help: "name of the distributed switch"},
	{Name: "datacenter", Type: "string", Help: "its datacenter, when two have a switch of that name"},
}

const (
	refuseAntiSpoofing = "refuse"
	macOnly            = "mac-only"
)

var backendInfos = append(slices.Clone(connectionInfos),
	core.SettingInfo{Name: "networks", Type: "strings", Required: true,
		Help: "primary VLANs, each with the ids of secondary VLANs that are ringwall's to give: 100:2000-2099"},
	core.SettingInfo{Name: "anti_spoofing", Type: "string", Default: refuseAntiSpoofing, Choices: []string{refuseAntiSpoofing, macOnly},
		Help: "what becomes of NICs with anti-spoofing on: refused, or their MACs alone are checked"},
	core.SettingInfo{Name: "prefix", Type: "string", Default: "ringwall", Help: "how names of port groups begin; give each switch of a datacenter its own"},
)

// endpoint is where vCenter is, and who asks.
type endpoint struct {
	url                       *url.URL
	user                      string
	passwordFile, passwordEnv string
	pin                       []byte // SHA-256 of its certificate; nil = verify
	caFile                    string
	place
}

// place names a switch.
type place struct{ Switch, Datacenter string }

// network is a primary VLAN, with the ids that may become its secondaries.
type network struct {
	Primary, First, Last int
}

type settings struct {
	endpoint
	networks map[int]network
	macOnly  bool
	prefix   string
}

// settingsReader reads settings; the first fault stays.
type settingsReader struct {
	path string
	core.Settings
	err error
}

func (r *settingsReader) fault(name, value, reason string) {
	if r.err == nil {
		r.err = &core.FieldError{Path: r.path + name, Value: value, Reason: reason}
	}
}

func (r *settingsReader) text(name string) string {
	s, isText := r.Settings[name].(string)
	if _, set := r.Settings[name]; set && !isText {
		r.fault(name, "", "not a string")
	}
	return s
}

func (r *settingsReader) known(infos []core.SettingInfo) {
	for name := range r.Settings {
		if !slices.ContainsFunc(infos, func(i core.SettingInfo) bool { return i.Name == name }) {
			r.fault(name, "", "no such setting of "+Name)
		}
	}
	for _, i := range infos {
		if _, set := r.Settings[i.Name]; i.Required && !set {
			r.fault(i.Name, "", "missing: "+i.Help)
		}
	}
}

func (r *settingsReader) endpoint() endpoint {
	e := endpoint{user: r.text("user"), passwordFile: r.text("password_file"), passwordEnv: r.text("password_env"),
		caFile: r.text("ca_file"), place: place{Switch: r.text("switch"), Datacenter: r.text("datacenter")}}
	u, err := url.Parse(r.text("url"))
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		r.fault("url", "", "not the URL of a vCenter; use https://HOST") // it may hold a password: not shown
	case u.User != nil:
		r.fault("url", "", "a user and password in it get into logs; use user and password_file")
	case u.Path != "" && u.Path != "/" && u.Path != "/sdk" || u.RawQuery != "":
		r.fault("url", u.Redacted(), "only the host and port of vCenter belong here")
	default:
		u.Path, e.url = "/sdk", u
	}
	if (e.passwordFile == "") == (e.passwordEnv == "") {
		r.fault("password_file", "", "give either password_file or password_env")
	}
	if pin := r.text("thumbprint"); pin != "" {
		if e.pin, err = hex.DecodeString(strings.ReplaceAll(pin, ":", "")); err != nil || len(e.pin) != 32 {
			r.fault("thumbprint", pin, "not a SHA-256 sum: 32 octets in hexadecimal, with or without colons")
		}
		if e.caFile != "" {
			r.fault("thumbprint", pin, "a certificate is pinned or verified; leave out thumbprint or ca_file")
		}
	}
	return e
}

func parseAdapterSettings(s core.Settings) (endpoint, error) {
	r := &settingsReader{path: "hypervisor.settings.", Settings: s}
	r.known(connectionInfos)
	e := r.endpoint()
	return e, r.err
}

func parseBackendSettings(s core.Settings) (settings, error) {
	r := &settingsReader{path: "backend.settings.", Settings: s}
	r.known(backendInfos)
	out := settings{endpoint: r.endpoint(), prefix: "ringwall", networks: map[int]network{}}
	if p := r.text("prefix"); p != "" {
		out.prefix = p
	}
	if len(out.prefix) > 32 || strings.ContainsAny(out.prefix, "/\\%") {
		r.fault("prefix", out.prefix, `at most 32 bytes, without / \ and %`)
	}
	switch mode := r.text("anti_spoofing"); mode {
	case macOnly:
		out.macOnly = true
	case "", refuseAntiSpoofing:
	default:
		r.fault("anti_spoofing", mode, "use refuse or mac-only")
	}
	r.networks(out.networks)
	return out, r.err
}

func (r *settingsReader) networks(out map[int]network) {
	list := toStrings(r.Settings["networks"])
	if len(list) == 0 {
		r.fault("networks", "", "not a list of primary VLANs and ranges, as in [\"100:2000-2099\"]")
	}
	owner := map[int]int{} // VLAN id: primary
	for i, text := range list {
		name := fmt.Sprintf("networks[%d]", i)
		n, reason := parseNetwork(text)
		if reason != "" {
			r.fault(name, text, reason)
			continue
		}
		ids := []int{n.Primary}
		for id := n.First; id <= n.Last; id++ {
			ids = append(ids, id)
		}
		for _, id := range ids {
			if other, taken := owner[id]; taken {
				r.fault(name, text, fmt.Sprintf("VLAN %d is network %d's too", id, other))
			}
			owner[id] = n.Primary
		}
		out[n.Primary] = n
	}
}

func parseNetwork(text string) (n network, reason string) {
	const use = "use PRIMARY:FIRST-LAST, as in 100:2000-2099"
	primary, span, ok := strings.Cut(text, ":")
	first, last, ranged := strings.Cut(span, "-")
	if !ranged {
		last = first
	}
	for _, f := range []struct {
		text string
		to   *int
	}{{primary, &n.Primary}, {first, &n.First}, {last, &n.Last}} {
		id, err := strconv.Atoi(f.text)
		if err != nil || !ok {
			return n, use
		}
		if id < 1 || id > 4094 {
			return n, "a VLAN id is 1 to 4094; " + use
		}
		*f.to = id
	}
	switch {
	case n.First > n.Last:
		return n, "the range ends before it starts"
	case n.First <= n.Primary && n.Primary <= n.Last:
		return n, "the primary VLAN cannot be one of its secondaries"
	}
	return n, ""
}

// toStrings takes a list as YAML gives it, or as Go has it.
func toStrings(v any) []string {
	switch v := v.(type) {
	case []string:
		return v
	case []any:
		out := make([]string, len(v))
		for i, item := range v {
			out[i] = fmt.Sprint(item)
		}
		return out
	}
	return nil
}
