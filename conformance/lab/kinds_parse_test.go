package lab_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/ringwall/ringwall/conformance/lab/frame"
)

// TestEveryFrameKindParses lets another implementation read what the builders
// wrote: its layers, and every checksum it knows.
func TestEveryFrameKindParses(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	for _, k := range kinds(s.a.Port(0), s.b.Port(0)) {
		p := gopacket.NewPacket(k.frame, layers.LayerTypeEthernet, gopacket.Default)
		var got []gopacket.LayerType
		for _, l := range p.Layers() {
			got = append(got, l.LayerType())
		}
		// What the last layer leaves over, padding included, is no finding.
		if len(got) > len(k.layers) && got[len(got)-1] == gopacket.LayerTypePayload {
			got = got[:len(got)-1]
		}
		// The parser knows no RARP, and calls it a failure.
		if f := p.ErrorLayer(); f != nil && k.frame.EtherType() != frame.TypeRARP && len(got) >= len(k.layers) {
			if got[len(got)-1] == gopacket.LayerTypeDecodeFailure && len(got) > len(k.layers) && k.frame.EtherType() != 0x88b6 {
				t.Errorf("%s: %v", k.name, f.Error())
			}
		}
		if len(got) > len(k.layers) && got[len(got)-1] == gopacket.LayerTypeDecodeFailure {
			got = got[:len(got)-1]
		}
		if d := cmp.Diff(names(k.layers), names(got)); d != "" {
			t.Errorf("%s: layers (-want +got):\n%s", k.name, d)
		}
		err, mismatches := p.VerifyChecksums()
		if err != nil || len(mismatches) > 0 {
			t.Errorf("%s: checksums: %v %+v", k.name, err, mismatches)
		}
	}
}

func names(ts []gopacket.LayerType) (out []string) {
	for _, t := range ts {
		out = append(out, t.String())
	}
	return out
}
