package wire

import (
	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// EncodeObservation sends o in parts.
func EncodeObservation(o core.Observation, send func(*pb.ObserveResponse) error) error {
	first := true
	return encodeList(o.Drift, encodeDrift,
		func(p *pb.ObserveResponse) *[]*pb.Drift { return &p.Drift },
		func(p *pb.ObserveResponse, last bool) error {
			if first && o.Fingerprint != (core.Fingerprint{}) {
				p.Fingerprint = encodeFingerprint(o.Fingerprint)
			}
			first = false
			p.Last = last
			return send(p)
		})
}

// DecodeObservation adds a part to o.
func DecodeObservation(o *core.Observation, p *pb.ObserveResponse) (err error) {
	if len(p.GetFingerprint()) > 0 {
		if o.Fingerprint, err = decodeFingerprint(p.GetFingerprint()); err != nil {
			return under("fingerprint", err)
		}
	}
	more, err := decodeAll(p.GetDrift(), decodeDrift)
	o.Drift = append(o.Drift, more...)
	return under("drift", err)
}

// EncodeCounters sends a list in parts.
func EncodeCounters(in []core.Counter, send func(*pb.CountersResponse) error) error {
	return encodeList(in, encodeCounter,
		func(p *pb.CountersResponse) *[]*pb.Counter { return &p.Counters },
		func(p *pb.CountersResponse, last bool) error { p.Last = last; return send(p) })
}

// DecodeCounters reads one part.
func DecodeCounters(p *pb.CountersResponse) ([]core.Counter, error) {
	out, err := decodeAll(p.GetCounters(), decodeCounter)
	return out, under("counters", err)
}

// EncodeFlows sends a list in parts.
func EncodeFlows(in []core.Flow, send func(*pb.FlowsResponse) error) error {
	return encodeList(in, encodeFlow,
		func(p *pb.FlowsResponse) *[]*pb.Flow { return &p.Flows },
		func(p *pb.FlowsResponse, last bool) error { p.Last = last; return send(p) })
}

// DecodeFlows reads a list of flows under the name of its field.
func DecodeFlows(field string, in []*pb.Flow) ([]core.Flow, error) {
	out, err := decodeAll(in, decodeFlow)
	return out, under(field, err)
}

// EncodeRevocation sends both lists of RevokeFlows in parts.
func EncodeRevocation(revoke, restore []core.Flow, send func(*pb.RevokeFlowsRequest) error) error {
	err := encodeList(revoke, encodeFlow,
		func(p *pb.RevokeFlowsRequest) *[]*pb.Flow { return &p.Revoke },
		func(p *pb.RevokeFlowsRequest, _ bool) error { return send(p) })
	if err != nil {
		return err
	}
	return encodeList(restore, encodeFlow,
		func(p *pb.RevokeFlowsRequest) *[]*pb.Flow { return &p.Restore },
		func(p *pb.RevokeFlowsRequest, last bool) error { p.Last = last; return send(p) })
}

// EncodeInstances sends a list in parts.
func EncodeInstances(in []core.Instance, send func(*pb.ListResponse) error) error {
	return encodeList(in, encodeInstance,
		func(p *pb.ListResponse) *[]*pb.Instance { return &p.Instances },
		func(p *pb.ListResponse, last bool) error { p.Last = last; return send(p) })
}

// InstanceDecoder puts the answer to List together.
type InstanceDecoder struct {
	out  []core.Instance
	seen map[core.VMKey]bool
}

// Add takes the next part. A VM that is listed twice is refused: nobody could
// say which of the two is plugged in.
func (d *InstanceDecoder) Add(p *pb.ListResponse) error {
	if d.seen == nil {
		d.seen = map[core.VMKey]bool{}
	}
	for i, m := range p.GetInstances() {
		v, err := decodeInstance(m)
		if err != nil {
			return under("instances"+index(i), err)
		}
		if d.seen[v.VM.Key] {
			return malformed("instances"+index(i), "VM %s is listed twice", v.VM.Key)
		}
		d.seen[v.VM.Key] = true
		d.out = append(d.out, v)
	}
	return nil
}

// Instances is what came.
func (d *InstanceDecoder) Instances() []core.Instance { return d.out }
