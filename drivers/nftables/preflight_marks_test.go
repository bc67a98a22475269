package nftables

import (
	"testing"

	"github.com/ringwall/ringwall/core"
)

func TestPreflightMarks(t *testing.T) {
	inet := func(hook, rule string) string {
		return "nft 'add table inet m; add chain inet m c {type filter hook " + hook + "; policy accept;}; add rule inet m c " + rule + "'"
	}
	for _, c := range []struct {
		name, rules string
		status      core.Status
		fix         string
	}{
		{"iptables writes ours", "iptables-nft -t mangle -A FORWARD -j MARK --set-xmark 0x100/0x300", core.StatusError, `mark_mask: "0x00003c00"`},
		{"iptables asks for ours", "iptables-nft -A FORWARD -m mark --mark 0x200/0x200", core.StatusWarning, `mark_mask: "0x00003c00"`},
		{"iptables writes beside ours", "iptables-nft -t mangle -A FORWARD -j MARK --set-xmark 0x10000/0x10000", core.StatusOK, ""},
		{"iptables writes all", "iptables-nft -t mangle -A FORWARD -j MARK --set-mark 1", core.StatusError, "give the other rule a mask"},
		{"a write that ours follows", "iptables-nft -t mangle -A PREROUTING -j MARK --set-mark 1", core.StatusOK, ""},
		{"a write that ours follows, by jump", "iptables-nft -t mangle -N X; iptables-nft -t mangle -A X -j MARK --set-mark 1; iptables-nft -t mangle -A PREROUTING -j X", core.StatusOK, ""},
		{"the same from two sides", "iptables-nft -t mangle -N X; iptables-nft -t mangle -A X -j MARK --set-mark 1; iptables-nft -t mangle -A PREROUTING -j X; iptables-nft -t mangle -A FORWARD -j X", core.StatusError, "give the other rule a mask"},
		{"the conntrack mark saved whole", "iptables-nft -t mangle -A PREROUTING -j CONNMARK --save-mark", core.StatusError, "--ctmask"},
		{"the conntrack mark saved in part", "iptables-nft -t mangle -A PREROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff", core.StatusOK, ""},
		{"the revoked bit", "iptables-nft -t mangle -A PREROUTING -j CONNMARK --set-xmark 0x80000000/0x80000000", core.StatusError, `flow_mark: "0x70000000"`},
		{"the revoked bit asked for", "iptables-nft -A FORWARD -m connmark --mark 0x80000000/0x80000000", core.StatusWarning, `flow_mark: "0x70000000"`},
		{"nft writes ours", inet("forward priority 0", "meta mark set meta mark or 0x700"), core.StatusError, `mark_mask: "0x00007800"`},
		{"nft keeps ours", inet("forward priority 0", "meta mark set meta mark and 0xffffff00 or 0x1"), core.StatusOK, ""},
		{"nft writes all", inet("forward priority 0", "meta mark set 0x1"), core.StatusError, "give the other rule a mask"},
		{"nft before ours", inet("prerouting priority -150", "meta mark set 0x1"), core.StatusOK, ""},
		{"nft after ours", inet("prerouting priority 0", "meta mark set 0x1"), core.StatusError, "give the other rule a mask"},
		{"nft asks", inet("forward priority 0", "meta mark and 0x100 == 0x100"), core.StatusWarning, "mark_mask"},
		{"nft writes a connection's", inet("forward priority 0", "ct mark set meta mark"), core.StatusError, "give the other rule a mask"},
		{"nft keeps ours of a connection", inet("forward priority 0", "ct mark set ct mark and 0xff000000 or 0x5"), core.StatusOK, ""},
		{"legacy writes ours", "iptables-legacy -t mangle -A FORWARD -j MARK --set-xmark 0x700/0x700", core.StatusError, "mark_mask"},
		{"legacy saves", "iptables-legacy -t mangle -A FORWARD -j CONNMARK --save-mark", core.StatusError, "--ctmask"},
		{"legacy keeps ours", "iptables-legacy -t mangle -A FORWARD -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", core.StatusOK, ""},
		{"legacy asks", "iptables-legacy -A FORWARD -m connmark --mark 0x80000000/0x80000000", core.StatusWarning, "flow_mark"},
		{"ip rule", "ip rule add fwmark 0x100/0x700 table 10", core.StatusWarning, `mark_mask: "0x00007800"`},
		{"ip -6 rule without a mask", "ip -6 rule add fwmark 0x5 table 10", core.StatusWarning, "give the other rule a mask"},
		{"ip rule beside ours", "ip rule add fwmark 0x1/0x1 table 10", core.StatusOK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			p.run(c.rules)
			got := p.expect("mark-bits", c.status)
			contains(t, "the fix", got.Fix, c.fix)
		})
	}
}
