package vmware

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

// Driver makes adapters.
func Driver() core.AdapterDriver { return driver{} }

type driver struct{}

func (driver) Info() core.Info {
	return core.Info{Name: Name, Version: "1", Settings: connectionInfos}
}

// Open needs no vCenter yet.
func (driver) Open(_ context.Context, s core.Settings) (core.HypervisorAdapter, error) {
	e, err := parseAdapterSettings(s)
	if err != nil {
		return nil, err
	}
	return newAdapter(e), nil
}

func newAdapter(e endpoint) *Adapter {
	return &Adapter{place: e.place, conn: newConnection(e), log: slog.Default().With("adapter", Name), backoff: time.Second}
}

// Adapter is a core.HypervisorAdapter for the VMs of one switch's datacenter.
type Adapter struct {
	place   place
	conn    *connection
	log     *slog.Logger
	backoff time.Duration // first pause before Watch tries again
}

// Info implements core.HypervisorAdapter.
func (a *Adapter) Info() core.Info { return driver{}.Info() }

// Close ends the session. Watches end with their contexts.
func (a *Adapter) Close() error { return a.conn.close() }

// List implements core.HypervisorAdapter: the VMs that run or are suspended,
// wherever in the datacenter. NICs on other switches have no binding.
func (a *Adapter) List(ctx context.Context) ([]core.Instance, error) {
	client, err := a.conn.connect(ctx)
	if err != nil {
		return nil, err
	}
	s, err := a.survey(ctx, client)
	if err != nil {
		return nil, err
	}
	machines, err := s.machines(ctx, client)
	if err != nil {
		return nil, err
	}
	var out []core.Instance
	for _, m := range machines {
		if m.running {
			out = append(out, a.instance(s, m))
		}
	}
	return out, nil
}

// survey is what a VM's NICs are judged by.
type survey struct {
	*virtualSwitch
	names map[int32]string // of custom attributes
}

func (a *Adapter) survey(ctx context.Context, c *vim25.Client) (survey, error) {
	sw, err := a.place.read(ctx, c)
	if err != nil {
		return survey{}, err
	}
	s := survey{virtualSwitch: sw, names: map[int32]string{}}
	if c.ServiceContent.CustomFieldsManager == nil {
		return s, nil
	}
	var fields mo.CustomFieldsManager
	if err := property.DefaultCollector(c).RetrieveOne(ctx, *c.ServiceContent.CustomFieldsManager, []string{"field"}, &fields); err != nil {
		return s, explain("reading the names of custom attributes", err)
	}
	for _, f := range fields.Field {
		s.names[f.Key] = f.Name
	}
	return s, nil
}

func (a *Adapter) instance(s survey, m *machine) core.Instance {
	in, err := s.instance(m, s.names)
	if err != nil {
		a.log.Warn("what a VM says of itself cannot be used; it stays closed", "error", err)
	}
	return in
}

// Preflight implements core.HypervisorAdapter.
func (a *Adapter) Preflight(ctx context.Context) ([]core.Check, error) {
	client, sw, checks := inspect(ctx, a.conn, a.place)
	if sw == nil {
		return checks, nil
	}
	s, err := a.survey(ctx, client)
	if err != nil {
		return nil, err
	}
	machines, err := s.machines(ctx, client)
	if err != nil {
		return nil, err
	}
	return append(checks, s.checkReach(machines), s.checkMetadata(machines)), nil
}

// checkReach names NICs that no private VLAN of this switch can hold.
func (s survey) checkReach(machines []*machine) core.Check {
	out := core.Check{Name: "reach", Summary: "every NIC is on the distributed switch, in one VLAN"}
	var beyond []string
	note := func(m *machine, d types.BaseVirtualEthernetCard, why string) {
		beyond = append(beyond, fmt.Sprintf("%s (%s): %s", m.name, d.GetVirtualEthernetCard().MacAddress, why))
	}
	for _, m := range machines {
		if !m.running {
			continue
		}
		for _, d := range m.cards {
			switch b := d.GetVirtualEthernetCard().Backing.(type) {
			case *types.VirtualEthernetCardNetworkBackingInfo:
				note(m, d, "on the standard vSwitch network "+b.DeviceName)
			case *types.VirtualEthernetCardOpaqueNetworkBackingInfo:
				note(m, d, "on an NSX network")
			case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
				g, known := s.groups[b.Port.PortgroupKey]
				switch {
				case b.Port.SwitchUuid != s.uuid:
					note(m, d, "on another distributed switch")
				case !known:
					note(m, d, "on a port of no port group")
				case s.primary(g) == 0:
					note(m, d, "in port group "+g.name+", which is in no single VLAN")
				}
			}
		}
	}
	if len(beyond) > 0 {
		out.Status, out.Summary = core.StatusWarning, fmt.Sprintf("%d NICs are out of reach: private VLANs do nothing for them", len(beyond))
		out.Evidence, out.Fix = strings.Join(beyond[:min(len(beyond), 20)], "; "), "connect them to a port group of switch "+s.name+" with a VLAN id"
	}
	return out
}

func (s survey) checkMetadata(machines []*machine) core.Check {
	out := core.Check{Name: "metadata", Summary: "what VMs say of themselves can be used"}
	var bad []string
	for _, m := range machines {
		if _, err := s.instance(m, s.names); err != nil {
			bad = append(bad, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		out.Status, out.Summary = core.StatusError, "what some VMs say of themselves cannot be used; they are closed"
		out.Evidence, out.Fix = strings.Join(bad[:min(len(bad), 20)], "; "), "mend the keys that begin with ringwall."
	}
	return out
}
