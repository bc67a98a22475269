package lab

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// operUpTimeout is far beyond what the kernel takes, even on a busy machine.
const operUpTimeout = 10 * time.Second

// awaitUp waits until both ends of a port pass packets. A veth that was set up
// drops what it is given until the kernel's link watch has run, which under load
// is up to a second later (linkwatch is rate-limited; kernel 6.18).
func (s *Station) awaitUp(p *Port) error {
	for _, end := range []struct {
		ns     *Namespace
		device string
	}{{s.host.Namespace, p.spec.Device}, {s.Namespace, p.spec.Name}} {
		nl, err := end.ns.Links()
		if err != nil {
			return err
		}
		deadline := time.Now().Add(operUpTimeout)
		for {
			link, err := nl.LinkByName(end.device)
			if err != nil {
				return err
			}
			if link.Attrs().OperState == netlink.OperUp {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s did not come up within %v", end.device, operUpTimeout)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}
