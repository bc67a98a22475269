// Package xapi is a pool of XenServer hosts in memory, as far as its management
// API (XAPI) goes: enough that any client of that API finds what it expects.
//
//	p := xapi.NewPool(xapi.Options{})
//	h := p.AddHost(xapi.HostSpec{Name: "xen1"})
//	n := p.AddNetwork(xapi.NetworkSpec{Name: "guests", Bridge: "xenbr0"})
//	vm := p.AddVM(xapi.VMSpec{Name: "web", VIFs: []xapi.VIFSpec{{Network: n, MAC: "02:00:00:00:00:01"}}})
//	srv, err := h.Serve()   // HTTPS, with a certificate of its own
//	defer srv.Close()
//	vm.Start(h); vm.Migrate(other); vm.Plug(xapi.VIFSpec{...})
//
// It speaks XML-RPC at /, JSON-RPC 1.0 and 2.0 at /json and /jsonrpc, over
// HTTPS and over a unix socket; sessions end by logout, by Expire, and with
// Restart. Hosts that are not the master refuse logins with HOST_IS_SLAVE.
// event.from has tokens, timeouts and snapshots. host.call_plugin runs a real
// executable the way XAPI does: XML-RPC on its command line, the answer on its
// standard output.
//
// Classes: session, pool, host, VM, VIF, network, PIF, task. For each there are
// get_all, get_all_records, get_record, get_by_uuid, get_by_name_label, get_F
// and, for maps, set_F, add_to_F and remove_from_F.
//
// References: the XenServer Management API guide and its "wire protocol" page.
package xapi
