package wire

import (
	"regexp"

	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// EncodeInfo is Info as it is.
func EncodeInfo(i core.Info) *pb.Info {
	return &pb.Info{
		Name: i.Name, Version: i.Version,
		Settings: encodeAll(i.Settings, func(s core.SettingInfo) *pb.SettingInfo {
			return &pb.SettingInfo{Name: s.Name, Type: s.Type, Default: s.Default, Choices: s.Choices, Required: s.Required, Help: s.Help}
		}),
		Features: encodeAll(i.Features, func(f core.Feature) string { return string(f) }),
	}
}

// DecodeInfo checks every name in it.
func DecodeInfo(m *pb.Info) (i core.Info, err error) {
	if i.Name, err = name(m.GetName()); err != nil {
		return i, under("name", err)
	}
	if i.Version, err = nameOrNone(m.GetVersion()); err != nil {
		return i, under("version", err)
	}
	if i.Settings, err = decodeAll(m.GetSettings(), decodeSettingInfo); err != nil {
		return i, under("settings", err)
	}
	i.Features, err = decodeAll(m.GetFeatures(), func(s string) (core.Feature, error) {
		s, err := name(s)
		return core.Feature(s), err
	})
	return i, under("features", err)
}

func decodeSettingInfo(m *pb.SettingInfo) (s core.SettingInfo, err error) {
	if s.Name, err = name(m.GetName()); err != nil {
		return s, under("name", err)
	}
	switch m.GetType() {
	case "string", "bool", "int", "duration", "strings":
		s.Type = m.GetType()
	default:
		return s, malformed("type", "%q is none of string, bool, int, duration, strings", m.GetType())
	}
	if s.Choices, err = decodeAll(m.GetChoices(), nameOrNone); err != nil {
		return s, under("choices", err)
	}
	s.Default, s.Required, s.Help = Text(m.GetDefault()), m.GetRequired(), Text(m.GetHelp())
	return s, nil
}

// EncodeChecks is the answer to Preflight.
func EncodeChecks(in []core.Check) []*pb.Check {
	return encodeAll(in, func(c core.Check) *pb.Check {
		return &pb.Check{Name: c.Name, Status: statuses.encode(c.Status), Summary: Text(c.Summary), Evidence: Text(c.Evidence), Fix: Text(c.Fix)}
	})
}

// DecodeChecks reads what EncodeChecks wrote.
func DecodeChecks(in []*pb.Check) ([]core.Check, error) {
	out, err := decodeAll(in, func(m *pb.Check) (c core.Check, err error) {
		if c.Name, err = name(m.GetName()); err != nil {
			return c, under("name", err)
		}
		if c.Status, err = statuses.decode(m.GetStatus()); err != nil {
			return c, under("status", err)
		}
		c.Summary, c.Evidence, c.Fix = Text(m.GetSummary()), Text(m.GetEvidence()), Text(m.GetFix())
		return c, nil
	})
	return out, under("checks", err)
}

func encodeDrift(d core.Drift) *pb.Drift {
	return &pb.Drift{Object: Text(d.Object), Difference: Text(d.Difference), Nic: encodeNICKey(d.NIC)}
}

func decodeDrift(m *pb.Drift) (d core.Drift, err error) {
	d.NIC, err = nicKeyOrNone(m.GetNic())
	d.Object, d.Difference = Text(m.GetObject()), Text(m.GetDifference())
	return d, under("nic", err)
}

// reasonSyntax keeps reasons fit for a metric's label; a newer plugin may
// count by one that this release has no name for.
var reasonSyntax = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

func encodeCounter(c core.Counter) *pb.Counter {
	return &pb.Counter{Nic: encodeNICKey(c.NIC), Device: c.Device, Direction: directions.encode(c.Direction), Reason: string(c.Reason), Packets: c.Packets, Bytes: c.Bytes}
}

func decodeCounter(m *pb.Counter) (c core.Counter, err error) {
	if c.NIC, err = nicKeyOrNone(m.GetNic()); err != nil {
		return c, under("nic", err)
	}
	if c.Device, err = nameOrNone(m.GetDevice()); err != nil {
		return c, under("device", err)
	}
	if c.Direction, err = directions.decode(m.GetDirection()); err != nil {
		return c, under("direction", err)
	}
	if !reasonSyntax.MatchString(m.GetReason()) {
		return c, malformed("reason", "%.64q is not a reason", m.GetReason())
	}
	c.Reason, c.Packets, c.Bytes = core.Reason(m.GetReason()), m.GetPackets(), m.GetBytes()
	return c, nil
}

func encodeFlow(f core.Flow) *pb.Flow {
	return &pb.Flow{
		Bridge: f.Bridge, Protocol: uint32(f.Protocol), Src: encodeAddr(f.Src), Dst: encodeAddr(f.Dst),
		SrcPort: uint32(f.SrcPort), DstPort: uint32(f.DstPort), Revoked: f.Revoked, HostSrc: f.HostSrc,
		From: encodeNICKey(f.From), To: encodeNICKey(f.To),
	}
}

func decodeFlow(m *pb.Flow) (f core.Flow, err error) {
	if err = known(m); err != nil {
		return f, err
	}
	if f.Bridge, err = nameOrNone(m.GetBridge()); err != nil {
		return f, under("bridge", err)
	}
	if m.GetProtocol() > 255 {
		return f, malformed("protocol", "%d is not a protocol", m.GetProtocol())
	}
	f.Protocol = core.Protocol(m.GetProtocol())
	if f.Src, err = decodeAddr(m.GetSrc()); err != nil {
		return f, under("src", err)
	}
	if f.Dst, err = decodeAddr(m.GetDst()); err != nil {
		return f, under("dst", err)
	}
	if f.SrcPort, err = port(m.GetSrcPort()); err != nil {
		return f, under("src_port", err)
	}
	if f.DstPort, err = port(m.GetDstPort()); err != nil {
		return f, under("dst_port", err)
	}
	if f.From, err = nicKeyOrNone(m.GetFrom()); err != nil {
		return f, under("from", err)
	}
	f.Revoked, f.HostSrc = m.GetRevoked(), m.GetHostSrc()
	f.To, err = nicKeyOrNone(m.GetTo())
	return f, under("to", err)
}

// EncodeEvent is one event of a backend.
func EncodeEvent(e core.Event) *pb.EventsResponse {
	return &pb.EventsResponse{Kind: eventKinds.encode(e.Kind), Object: Text(e.Object), By: Text(e.By)}
}

// DecodeEvent reads what EncodeEvent wrote.
func DecodeEvent(m *pb.EventsResponse) (e core.Event, err error) {
	e.Object, e.By = Text(m.GetObject()), Text(m.GetBy())
	e.Kind, err = eventKinds.decode(m.GetKind())
	return e, under("kind", err)
}
