package live_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/live"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

var target = scenarios.Target{Driver: nftables.Driver()}

func TestNoBlink(t *testing.T) { live.NoBlink(t, target) }

func TestRecreation(t *testing.T) { live.Recreation(t, target) }

func TestSpanningTree(t *testing.T) { live.SpanningTree(t, target) }

func TestRevocation(t *testing.T) { live.Revocation(t, target) }

func TestUntracked(t *testing.T) { live.Untracked(t, target) }

func TestMasquerade(t *testing.T) { live.Masquerade(t, target) }

func TestRefusal(t *testing.T) {
	live.Refusal(t, target, func() error {
		return run("nft", "add set bridge ringwall members4/"+live.Late+" { type inet_service; }")
	})
}

func TestForeign(t *testing.T) {
	drift := func(name, object, script string) live.Tamper {
		return live.Tamper{Name: name, Drift: object, Event: core.EventDrift, By: "nft", Do: func() error { return run("nft", script) }}
	}
	live.Foreign(t, target,
		drift("all rules are flushed", "bridge ringwall", "flush ruleset"),
		drift("a table is deleted", "ip6 ringwall", "delete table ip6 ringwall"),
		drift("the ports' table is deleted", "netdev ringwall", "delete table netdev ringwall"),
		drift("a chain loses its rules", "bridge ringwall chain source", "flush chain bridge ringwall source"),
		drift("a chain gains a rule", "bridge ringwall chain ingress", "insert rule bridge ringwall ingress accept"),
		drift("a rule is edited", "bridge ringwall chain output", "flush chain bridge ringwall output; add rule bridge ringwall output accept"),
		drift("a member is added", "members4/ga", "add element bridge ringwall members4/ga { 10.0.0.9 }"),
		drift("an address is taken away", "src4", `delete element bridge ringwall src4 { "vnet0" . 02:00:00:00:00:0a . 10.0.0.1 }`),
		drift("a NIC's chain is another's", "out4", `delete element bridge ringwall out4 { "vnet0" }`),
		live.Tamper{Name: "the bridge's netfilter is switched off", Event: core.EventRepaired, Do: func() error { return switchOff("br0") }},
	)
}

func run(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", argv, err, out)
	}
	return nil
}

// switchOff clears the switches of a bridge in the calling thread's namespace.
func switchOff(bridge string) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(bridge)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	for _, attr := range []int{nl.IFLA_BR_NF_CALL_IPTABLES, nl.IFLA_BR_NF_CALL_IP6TABLES, nl.IFLA_BR_NF_CALL_ARPTABLES} {
		data.AddRtAttr(attr, nl.Uint8Attr(0))
	}
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
