package vmware

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

// oldestSwitch has all that is asked of a switch here: private VLANs are in all
// versions, and API 5.0 brought port groups that grow.
const oldestSwitch = 5

// What the backend does, and the privileges that it needs for it. Reading needs
// System.Read alone.
var (
	switchPrivileges  = []string{"System.Read", "DVSwitch.Modify", "DVPortgroup.Create", "DVPortgroup.Modify", "DVPortgroup.PolicyOp", "DVPortgroup.Delete"}
	machinePrivileges = []string{"System.Read", "Network.Assign", "VirtualMachine.Config.EditDevice", "VirtualMachine.Config.AdvancedConfig"}
)

// Preflight implements core.SecurityGroupBackend.
func (b *Backend) Preflight(ctx context.Context) ([]core.Check, error) {
	client, sw, checks := inspect(ctx, b.conn, b.settings.place)
	if sw == nil {
		return checks, nil
	}
	checks = append(checks, checkRights(ctx, client, sw), sw.checkNetworks(b.settings.networks))
	machines, err := sw.machines(ctx, client)
	if err != nil {
		return nil, err
	}
	return append(checks, sw.checkPorts(b.settings.networks, machines)), nil
}

// inspect checks what the adapter and the backend both need. There is no switch
// where a check has failed.
func inspect(ctx context.Context, conn *connection, p place) (*vim25.Client, *virtualSwitch, []core.Check) {
	fail := func(name, summary, fix string, err error) []core.Check {
		return []core.Check{{Name: name, Status: core.StatusError, Summary: summary, Evidence: err.Error(), Fix: fix}}
	}
	client, err := conn.connect(ctx)
	if err != nil {
		return nil, nil, fail("vcenter", "vCenter cannot be used", "check url, user, password_file and thumbprint; curl -v "+conn.url.String(), err)
	}
	about := client.ServiceContent.About
	reached := core.Check{Name: "vcenter", Summary: fmt.Sprintf("%s answers: %s %s", conn.url.Host, about.Name, about.Version)}
	sw, err := p.read(ctx, client)
	if err != nil {
		return nil, nil, append([]core.Check{reached}, fail("switch", "the switch cannot be used", "set switch to a VMware distributed switch that "+conn.user+" may see", err)...)
	}
	checks := []core.Check{reached, {Name: "switch", Summary: fmt.Sprintf("distributed switch %s, version %s", sw.name, cmp.Or(sw.product, "unknown"))}}
	major, _, _ := strings.Cut(sw.product, ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldestSwitch {
		checks[1].Status, checks[1].Summary = core.StatusError, "the switch is too old, or does not say its version"
		checks[1].Evidence, checks[1].Fix = "version "+cmp.Or(sw.product, "unknown"), fmt.Sprintf("upgrade distributed switch %s to version %d.0 or newer", sw.name, oldestSwitch)
		return nil, nil, checks
	}
	return client, sw, checks
}

func checkRights(ctx context.Context, c *vim25.Client, sw *virtualSwitch) core.Check {
	out := core.Check{Name: "rights", Summary: "the vCenter user may do what is needed"}
	var lack []string
	for _, ask := range []struct {
		on   types.ManagedObjectReference
		name string
		ids  []string
	}{{sw.ref, "switch " + sw.name, switchPrivileges}, {sw.datacenter, "the datacenter", machinePrivileges}} {
		missing, err := missingPrivileges(ctx, c, ask.on, ask.ids)
		if err != nil {
			return core.Check{Name: "rights", Status: core.StatusError, Summary: "the vCenter user's privileges cannot be read", Evidence: err.Error(), Fix: "grant the user System.View"}
		}
		if len(missing) > 0 {
			lack = append(lack, strings.Join(missing, ", ")+" on "+ask.name)
		}
	}
	if len(lack) > 0 {
		out.Status, out.Summary = core.StatusError, "the vCenter user lacks privileges"
		out.Evidence, out.Fix = strings.Join(lack, "; "), "grant them by a role, propagating to children"
	}
	return out
}

func missingPrivileges(ctx context.Context, c *vim25.Client, on types.ManagedObjectReference, ids []string) (missing []string, err error) {
	var session mo.SessionManager
	if err := property.DefaultCollector(c).RetrieveOne(ctx, *c.ServiceContent.SessionManager, []string{"currentSession"}, &session); err != nil {
		return nil, explain("reading our session", err)
	}
	if session.CurrentSession == nil {
		return nil, fmt.Errorf("vCenter does not say which session is ours: %w", core.ErrNotReady)
	}
	granted, err := methods.HasPrivilegeOnEntity(ctx, c, &types.HasPrivilegeOnEntity{This: *c.ServiceContent.AuthorizationManager,
		Entity: on, SessionId: session.CurrentSession.Key, PrivId: ids})
	if err != nil {
		return nil, explain("reading privileges", err)
	}
	for i, ok := range granted.Returnval {
		if !ok {
			missing = append(missing, ids[i])
		}
	}
	return missing, nil
}

// checkNetworks looks for what would stop a Sync.
func (sw *virtualSwitch) checkNetworks(networks map[int]network) core.Check {
	out := core.Check{Name: "networks", Summary: fmt.Sprintf("%d primary VLANs can be managed", len(networks))}
	var problems []string
	for _, n := range networks {
		want := intent{networks: map[int]network{n.Primary: n}}
		if _, err := newPlan(sw, nil, want); err != nil {
			problems = append(problems, err.Error())
		}
	}
	for _, e := range sw.entries {
		n, managed := networks[e.Primary]
		if managed && (n.First <= e.Secondary && e.Secondary <= n.Last) && !sw.owns(e) {
			problems = append(problems, fmt.Sprintf("%s was made by somebody else; it is left alone, and its id is not given away", e))
		}
	}
	if len(problems) > 0 {
		slices.Sort(problems)
		out.Status, out.Summary = core.StatusWarning, "the switch's private VLAN map and the setting networks do not agree"
		out.Evidence, out.Fix = strings.Join(problems, "; "), "give ringwall ranges that nobody else uses"
	}
	return out
}

func (sw *virtualSwitch) owns(e entry) bool {
	for _, g := range sw.groups {
		if g.mark != nil && g.mark.VLAN == e.Primary && slices.Contains(g.mark.Own, e.Secondary) {
			return true
		}
	}
	return false
}

// checkPorts shows who would be closed or moved when a network comes under
// management.
func (sw *virtualSwitch) checkPorts(networks map[int]network, machines []*machine) core.Check {
	out := core.Check{Name: "ports", Summary: "every NIC on the networks is on a port group of ours"}
	var open []string
	for _, m := range machines {
		for _, c := range sw.cards(m) {
			g, known := sw.groups[c.group]
			if _, managed := networks[sw.primary(g)]; known && managed && g.mark == nil && !m.template {
				open = append(open, fmt.Sprintf("%s (%s in %s)", m.name, c.mac, g.name))
			}
		}
	}
	if len(open) > 0 {
		out.Status, out.Summary = core.StatusWarning, fmt.Sprintf("%d NICs are on port groups of others; those without a policy are closed when their VLAN comes under management", len(open))
		out.Evidence, out.Fix = strings.Join(open[:min(len(open), 20)], ", "), "give each VM a policy first: gateways kind system"
	}
	return out
}
