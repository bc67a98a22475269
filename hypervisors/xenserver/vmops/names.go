package vmops

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// maxName is the longest name that vmops does not cut anywhere. It cuts the base
// of ipset names to 13 when a name has more than 14, and then leaves the sets
// behind when the VM goes.
const maxName = 14

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// systemPrefixes make vmops take a VM for a system VM: its rules are not set.
var systemPrefixes = []string{"r-", "s-", "v-", "l-"}

func looksSystem(name string) bool {
	return slices.ContainsFunc(systemPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// checkName refuses a VM whose name vmops would read as something else.
func checkName(name string, kind core.VMKind) error {
	refuse := func(reason string) error {
		return fmt.Errorf("the VM's name %q %s; rename it (xe vm-param-set name-label=...): %w", name, reason, core.ErrUnsupported)
	}
	switch {
	case !plainName.MatchString(name):
		return refuse("is not made of letters, digits, dots, dashes and underscores, which vmops puts into names of chains and sets")
	case len(name) > maxName:
		return refuse(fmt.Sprintf("is longer than %d characters, and vmops cuts it", maxName))
	case strings.HasSuffix(name, "-untagged"):
		return refuse("ends in -untagged, which vmops cuts off")
	case kind == core.SystemVM && !looksSystem(name):
		return refuse("does not start with r-, s-, v- or l-, by which vmops knows system VMs")
	case kind == core.UserVM && looksSystem(name):
		return refuse("starts as system VMs do, and vmops would not filter it")
	}
	return nil
}

// objects are the names of all that vmops makes for a VM in tables that VMs
// share: chains, sets, and the temporary sets by what of their names is fixed.
func objects(vm string, sets []string) []string {
	out := []string{"chain " + vm, "chain " + vm + "-eg", "chain " + vm + "-def", "set " + vm, "temporary " + temporary(vm)}
	for _, s := range sets {
		out = append(out, "set "+s, "temporary "+temporary(s))
	}
	return out
}
