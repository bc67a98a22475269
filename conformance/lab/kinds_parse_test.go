package lab_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
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
			if c, ok := l.(checksummed); ok {
				c.SetNetworkLayerForChecksum(p.NetworkLayer())
			}
		}
		if len(got) == len(k.layers)+1 && got[len(got)-1] == gopacket.LayerTypePayload {
			got = got[:len(got)-1] // data that the last layer leaves over is no finding
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

// checksummed are layers whose checksum covers addresses of the IP header.
type checksummed interface {
	SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
}

func names(ts []gopacket.LayerType) (out []string) {
	for _, t := range ts {
		out = append(out, t.String())
	}
	return out
}
