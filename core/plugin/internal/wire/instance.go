package wire

import (
	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

func encodeInstance(i core.Instance) *pb.Instance {
	return &pb.Instance{
		Key: string(i.VM.Key), Name: i.VM.Name, Kind: vmKinds.encode(i.VM.Kind), Claims: i.Claims, DomainId: i.DomainID,
		Nics: encodeAll(i.VM.NICs, func(n core.NIC) *pb.NIC {
			return &pb.NIC{
				Mac: encodeMAC(n.MAC), Addresses: encodeAll(n.Addresses, encodeAddr), Pairs: encodeAll(n.Pairs, encodePair),
				Groups: n.Groups, SpoofingAllowed: n.SpoofingAllowed,
				Bridge: n.Binding.Bridge, Devices: n.Binding.Devices, Point: n.Binding.Point,
			}
		}),
	}
}

func decodeInstance(m *pb.Instance) (i core.Instance, err error) {
	if err = known(m); err != nil {
		return i, err
	}
	key, err := name(m.GetKey())
	if err != nil {
		return i, under("key", err)
	}
	i.VM.Key, i.Claims = core.VMKey(key), m.GetClaims()
	if i.VM.Name, err = nameOrNone(m.GetName()); err != nil {
		return i, under("name", err)
	}
	if i.DomainID, err = nameOrNone(m.GetDomainId()); err != nil {
		return i, under("domain_id", err)
	}
	if i.VM.Kind, err = vmKinds.decode(m.GetKind()); err != nil {
		return i, under("kind", err)
	}
	if i.VM.NICs, err = decodeAll(m.GetNics(), decodeNIC); err != nil {
		return i, under("nics", err)
	}
	seen := make(map[core.MAC]bool, len(i.VM.NICs))
	for _, n := range i.VM.NICs {
		if seen[n.MAC] {
			return i, malformed("nics", "%s twice in one VM", n.MAC)
		}
		seen[n.MAC] = true
	}
	return i, nil
}

func decodeNIC(m *pb.NIC) (n core.NIC, err error) {
	if err = known(m); err != nil {
		return n, err
	}
	if n.MAC, err = decodeMAC(m.GetMac()); err != nil {
		return n, under("mac", err)
	}
	if n.Addresses, err = decodeAll(m.GetAddresses(), decodeAddr); err != nil {
		return n, under("addresses", err)
	}
	if n.Pairs, err = decodeAll(m.GetPairs(), decodePair); err != nil {
		return n, under("pairs", err)
	}
	if n.Groups, err = names(m.GetGroups()); err != nil {
		return n, under("groups", err)
	}
	if n.Binding.Bridge, err = nameOrNone(m.GetBridge()); err != nil {
		return n, under("bridge", err)
	}
	if n.Binding.Devices, err = names(m.GetDevices()); err != nil {
		return n, under("devices", err)
	}
	if n.Binding.Point, err = nameOrNone(m.GetPoint()); err != nil {
		return n, under("point", err)
	}
	n.SpoofingAllowed = m.GetSpoofingAllowed()
	return n, nil
}

// EncodeVMEvent is one event of an adapter.
func EncodeVMEvent(e core.VMEvent) *pb.WatchResponse {
	m := &pb.WatchResponse{Kind: vmEventKinds.encode(e.Kind)}
	if e.Kind != core.VMResync {
		m.Instance = encodeInstance(e.Instance)
	}
	return m
}

// DecodeVMEvent reads what EncodeVMEvent wrote.
func DecodeVMEvent(m *pb.WatchResponse) (e core.VMEvent, err error) {
	if e.Kind, err = vmEventKinds.decode(m.GetKind()); err != nil {
		return e, under("kind", err)
	}
	if e.Kind != core.VMResync {
		e.Instance, err = decodeInstance(m.GetInstance())
	}
	return e, under("instance", err)
}
