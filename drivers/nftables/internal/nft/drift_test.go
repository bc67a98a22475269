package nft

import (
	"strings"
	"testing"
)

// Whatever somebody else does to our tables shows, by the object's name.
func TestDriftNamesTheObject(t *testing.T) {
	tests := []struct {
		name string
		nft  [][]string // commands of the nft program
		want []string
	}{
		{"table gone", [][]string{{"delete table ip ringwall"}},
			[]string{"table ip ringwall: missing, want: present"}},
		{"ruleset flushed", [][]string{{"flush ruleset"}}, []string{
			"table ip ringwall: missing, want: present",
			"table netdev ringwall: missing, want: present",
			"table bridge ringwall: missing, want: present",
			"table ip6 ringwall: missing, want: present"}},
		{"table dormant", [][]string{{"add table ip ringwall { flags dormant; }"}},
			[]string{"table ip ringwall: is: dormant, want: active"}},
		{"rule appended", [][]string{{"add rule bridge ringwall post counter accept"}},
			[]string{"bridge ringwall chain post rule 2: not ours: counter accept"}},
		{"rule inserted", [][]string{{"insert rule bridge ringwall out-vnet0 accept"}},
			[]string{"bridge ringwall chain out-vnet0 rule 1: not ours: accept"}},
		{"rule edited, comment kept", [][]string{
			{"flush chain netdev ringwall ingress"},
			{"add rule netdev ringwall ingress @ll,0,48 & 0xfffffffffff0 == 0x0180c2000010 drop"}},
			[]string{"netdev ringwall chain ingress rule 1: is: ether daddr & 0xfffffffffff0 == 01:80:c2:00:00:10 drop, want: ether daddr & 0xfffffffffff0 == 01:80:c2:00:00:00 drop"}},
		{"comment edited", [][]string{
			{"flush chain bridge ringwall post"}, {`add rule bridge ringwall post accept comment "x"`}},
			[]string{`bridge ringwall chain post rule 1: is: accept comment "x", want: accept`}},
		{"chain flushed", [][]string{{"flush chain bridge ringwall post"}},
			[]string{"bridge ringwall chain post rule 1: missing, want: accept"}},
		{"policy", [][]string{{"add chain bridge ringwall post { policy accept; }"}},
			[]string{"bridge ringwall chain post: is: type filter hook postrouting priority 0 policy accept, want: type filter hook postrouting priority 0 policy drop"}},
		{"base chain gone", [][]string{{"delete chain ip ringwall zone"}},
			[]string{"ip ringwall chain zone: missing, want: type filter hook prerouting priority -450 policy accept"}},
		{"foreign chain", [][]string{{"add chain ip ringwall mine { type filter hook input priority 0; }"}},
			[]string{"ip ringwall chain mine: not ours: type filter hook input priority 0 policy accept with 0 rules"}},
		{"foreign set", [][]string{{"add set ip ringwall mine { type ipv4_addr; elements = { 10.0.0.1 }; }"}},
			[]string{"ip ringwall set mine: not ours: type ipv4_addr with 1 elements"}},
		{"foreign object", [][]string{{"add counter ip ringwall mine"}},
			[]string{"ip ringwall counter mine: not ours: present"}},
		{"foreign counter in use", [][]string{{"add counter ip ringwall mine"}, {"add rule ip ringwall est counter name mine"}},
			[]string{"ip ringwall chain est rule 2: not ours: counter name \"mine\"", "ip ringwall counter mine: not ours: present"}},

		{"element added", [][]string{{`add element bridge ringwall src4 { "vnet9" . 02:00:00:00:00:09 . 10.0.0.9 }`}},
			[]string{`bridge ringwall set src4 element "vnet9" . 02:00:00:00:00:09 . 10.0.0.9: not ours: "vnet9" . 02:00:00:00:00:09 . 10.0.0.9`}},
		{"element gone", [][]string{{"delete element bridge ringwall ports { 100-199 }"}},
			[]string{"bridge ringwall set ports element 100-199: missing, want: 100-199"}},
		{"interval widened", [][]string{{"delete element bridge ringwall ports { 100-199 }"}, {"add element bridge ringwall ports { 100-299 }"}},
			[]string{"bridge ringwall set ports element 100-199: missing, want: 100-199", "bridge ringwall set ports element 100-299: not ours: 100-299"}},
		{"verdict changed", [][]string{{`delete element bridge ringwall out { "vnet3" }`}, {`add element bridge ringwall out { "vnet3" : accept }`}},
			[]string{`bridge ringwall set out element "vnet3": is: "vnet3" : accept, want: "vnet3" : drop`}},
		{"pipapo element added", [][]string{{"add element bridge ringwall cidrs { 192.0.2.1 . tcp . 1-65535 }"}},
			[]string{"bridge ringwall set cidrs element 192.0.2.1 . tcp . 1-65535: not ours: 192.0.2.1 . tcp . 1-65535"}},
		{"catch-all added", [][]string{{"add element bridge ringwall members { * }"}},
			[]string{"bridge ringwall set members element *: not ours: *"}},
		{"counter only", [][]string{{"reset counters"}}, nil},
		{"other table", [][]string{{"add table ip other"}}, nil},
		{"dynamic set filled", [][]string{{`add element bridge ringwall seen { "vnet7" }`}}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := enterNamespace(t)
			want := sampleState()
			apply(t, c, Diff(nil, want))
			for _, command := range test.nft {
				nft(t, command...)
			}
			ids := sortedIDs(want)
			have, _, err := c.ReadState(testContext(t), ids...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range Compare(want, have) {
				got = append(got, d.String())
			}
			if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("drift:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}

			// What drifted is put back, whatever it was.
			apply(t, c, Diff(have, want))
			back, _, err := c.ReadState(testContext(t), ids...)
			if err != nil {
				t.Fatal(err)
			}
			if left := Compare(want, back); len(left) > 0 {
				t.Errorf("after repair: %v", left)
			}
		})
	}
}
