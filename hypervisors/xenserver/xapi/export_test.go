package xapi

import (
	"context"
	"net"
	"net/http"
)

// PointAt sends all calls to an address in the clear.
func PointAt(c *Client, addr string) {
	c.endpoints = []endpoint{{"tcp", addr, "http://" + addr}}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
}
