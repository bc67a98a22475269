package stock

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const saved = `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:BF-cloudbr0 - [0:0]
:BF-cloudbr0-IN - [0:0]
:BF-cloudbr0-OUT - [0:0]
:i-2-5-VM - [0:0]
:i-2-5-VM-eg - [0:0]
:i-2-5-def - [0:0]
:i-2-55-VM - [0:0]
:i-2-55-VM-eg - [0:0]
:i-2-55-def - [0:0]
:r-4-VM - [0:0]
-A INPUT -p tcp --dport 22 -j ACCEPT
-A FORWARD -o cloudbr0 -m physdev --physdev-is-bridged -j BF-cloudbr0
-A FORWARD -i cloudbr0 -m physdev --physdev-is-bridged -j BF-cloudbr0
-A FORWARD -o cloudbr0 -j DROP
-A FORWARD -i cloudbr0 -j DROP
-A FORWARD -i virbr0 -j DROP
-A BF-cloudbr0 -m physdev --physdev-is-in --physdev-is-bridged -j BF-cloudbr0-IN
-A BF-cloudbr0-IN -m physdev --physdev-in vnet5 --physdev-is-bridged -j i-2-5-def
-A BF-cloudbr0-OUT -m physdev --physdev-out vnet5 --physdev-is-bridged -j i-2-5-def
-A BF-cloudbr0-OUT -m physdev --physdev-out vnet55 --physdev-is-bridged -j i-2-55-def
-A BF-cloudbr0-OUT -m physdev --physdev-out vnet4 --physdev-is-bridged -j r-4-VM
-A i-2-5-VM -j DROP
-A i-2-5-def -m physdev --physdev-out vnet5 --physdev-is-bridged -j i-2-5-VM
-A i-2-55-VM -j DROP
-A r-4-VM -j ACCEPT
COMMIT
`

// TestPlan: a VM's own rules go, its neighbour of nearly the same name and
// foreign rules stay, and the device is let through.
func TestPlan(t *testing.T) {
	script, left := plan(saved, "i-2-5-VM", []string{"vnet5"})
	want := `*filter
-I BF-cloudbr0-OUT 1 -m physdev --physdev-out vnet5 --physdev-is-bridged -j ACCEPT
-D BF-cloudbr0-IN -m physdev --physdev-in vnet5 --physdev-is-bridged -j i-2-5-def
-D BF-cloudbr0-OUT -m physdev --physdev-out vnet5 --physdev-is-bridged -j i-2-5-def
-D i-2-5-VM -j DROP
-D i-2-5-def -m physdev --physdev-out vnet5 --physdev-is-bridged -j i-2-5-VM
-X i-2-5-VM
-X i-2-5-VM-eg
-X i-2-5-def
COMMIT
`
	if diff := cmp.Diff(want, script); diff != "" || !left {
		t.Errorf("left %v\n%s", left, diff)
	}
}

// TestPlanOfTheLast takes the bridge's chains along, and those of system VMs.
func TestPlanOfTheLast(t *testing.T) {
	text := saved
	for _, l := range strings.SplitAfter(saved, "\n") {
		if strings.Contains(l, "i-2-5-") {
			text = strings.Replace(text, l, "", 1)
		}
	}
	script, left := plan(text, "i-2-55-VM", []string{"vnet55"})
	for _, gone := range []string{"-X BF-cloudbr0\n", "-X BF-cloudbr0-OUT\n", "-X r-4-VM\n", "-D FORWARD -o cloudbr0 -j DROP\n", "-D FORWARD -i cloudbr0 -m physdev --physdev-is-bridged -j BF-cloudbr0\n"} {
		if !strings.Contains(script, gone) {
			t.Errorf("%q is missing in\n%s", gone, script)
		}
	}
	if left || strings.Contains(script, "virbr0") || strings.Contains(script, "INPUT") || strings.Contains(script, "-I ") {
		t.Errorf("left %v\n%s", left, script)
	}
	if script, left := plan("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", "i-2-5-VM", []string{"vnet5"}); script != "" || left {
		t.Errorf("%v %q", left, script)
	}
}
