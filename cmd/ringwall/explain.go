package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/core/api"
)

func (a *app) explainCommand() *cobra.Command {
	var x api.ExplainRequest
	var src, dst string
	var icmpType, icmpCode, vlan int
	c := &cobra.Command{
		Use:   "explain --from END --to END [--proto PROTOCOL --dport PORT | --frame KIND]",
		Short: "Tell why a packet passes or is dropped",
		Long: `Tell why a packet passes or is dropped: each check that it meets at the sender's and
at the receiver's port, the one that decides, and the rules that nearly match. Rows are
those of docs/semantics.md. Nothing is sent: the answer comes from the rules in force.

An end is a VM's name (when it has one NIC), VM/MAC, a MAC, an IP address (of a NIC, else of
somebody beyond the uplink), uplink, host, or closed for a port without policy;
uplink/ADDRESS and host/ADDRESS name the address too.

Without --proto and --frame the packet is a ping. --src, --src-mac, --dst and --dst-mac
put other addresses into it than the ends have, to see how spoofing fares.

Frames, besides an EtherType such as 0x88cc:
` + frameList(),
		Example: `  ringwall explain --from web1 --to db1 --proto tcp --dport 5432
  ringwall explain --from 203.0.113.9 --to web1 --proto tcp --dport 80
  ringwall explain --from web1 --to uplink --frame router-advertisement
  ringwall explain --from web1 --to db1 --src 10.0.0.66          # a spoofed source
  ringwall explain --from web1 --to db1 --proto tcp --dport 80 --state established`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if x.From == "" || x.To == "" {
				return usage("say who speaks to whom with --from and --to; see %s --help", cmd.CommandPath())
			}
			for _, v := range []struct {
				flag, text string
				dst        *netip.Addr
			}{{"src", src, &x.Src}, {"dst", dst, &x.Dst}} {
				if v.text == "" {
					continue
				}
				if *v.dst, err = netip.ParseAddr(v.text); err != nil {
					return usage("--%s %s: not an IP address", v.flag, v.text)
				}
			}
			for _, v := range []struct {
				flag  string
				value int
				dst   **uint8
			}{{"icmp-type", icmpType, &x.ICMPType}, {"icmp-code", icmpCode, &x.ICMPCode}} {
				if !cmd.Flags().Changed(v.flag) {
					continue
				}
				if v.value < 0 || v.value > 255 {
					return usage("--%s %d: not a number from 0 to 255", v.flag, v.value)
				}
				n := uint8(v.value)
				*v.dst = &n
			}
			if cmd.Flags().Changed("vlan") {
				if vlan < 0 || vlan > 4095 {
					return usage("--vlan %d: not a number from 0 to 4095", vlan)
				}
				n := uint16(vlan)
				x.VLAN = &n
			}
			return a.service(cmd.Context(), func(s api.Service) error {
				e, err := s.Explain(cmd.Context(), x)
				if err != nil {
					return err
				}
				return a.print(e, func(w io.Writer) error { return a.printExplanation(w, e) })
			})
		},
	}
	f := c.Flags()
	f.StringVar(&x.From, "from", "", "`end` that sends")
	f.StringVar(&x.To, "to", "", "`end` that receives")
	f.StringVar(&x.Protocol, "proto", "", "`protocol`: tcp, udp, icmp, icmpv6, sctp or a number")
	f.Uint16Var(&x.SrcPort, "sport", 0, "source `port`")
	f.Uint16Var(&x.DstPort, "dport", 0, "destination `port`")
	f.IntVar(&icmpType, "icmp-type", 0, "ICMP `type` (default: echo request)")
	f.IntVar(&icmpCode, "icmp-code", 0, "ICMP `code`")
	f.StringVar(&x.Frame, "frame", "", "`kind` of frame instead of a packet")
	f.StringVar(&x.State, "state", "", "what connection tracking says: new (default), established, related, invalid, untracked, revoked, astray, astray-reply")
	f.BoolVarP(&x.IPv6, "ipv6", "6", false, "use IPv6 where both families would do")
	f.StringVar(&src, "src", "", "source `address` in the packet")
	f.StringVar(&dst, "dst", "", "destination `address` in the packet")
	f.StringVar(&x.SrcMAC, "src-mac", "", "source `MAC` in the frame")
	f.StringVar(&x.DstMAC, "dst-mac", "", "destination `MAC` in the frame")
	f.IntVar(&vlan, "vlan", 0, "802.1Q tag with this `id`")
	_ = c.RegisterFlagCompletionFunc("frame", cobra.FixedCompletions(api.FrameKinds(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"tcp", "udp", "icmp", "icmpv6", "sctp"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) printExplanation(w io.Writer, e api.Explanation) error {
	word := a.paint(red, "DROPPED")
	switch {
	case e.WouldDrop:
		word = a.paint(yellow, "PASSES, but only because enforce is false")
	case e.Allowed:
		word = a.paint(green, "PASSES")
	}
	fmt.Fprintf(w, "%s (%s)\n", word, e.Reason)
	for _, leg := range e.Legs {
		fmt.Fprintf(w, "\n%s -> %s\n  %s\n", leg.From, leg.To, leg.Frame)
		side := ""
		for _, s := range leg.Steps {
			if s.Side != side {
				side = s.Side
				fmt.Fprintf(w, "  at the %s's port:\n", side)
			}
			mark, c := " ", plain
			if s.Decides {
				mark, c = "*", bold
			}
			fmt.Fprintf(w, "  %s row %2d  %s\n", mark, s.Row, a.paint(c, s.Text))
		}
	}
	return nil
}

// frameList is FrameKinds in lines that fit.
func frameList() string {
	var b strings.Builder
	for kinds := range slices.Chunk(api.FrameKinds(), 4) {
		b.WriteString("  " + strings.Join(kinds, ", ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
