package api

import (
	"context"

	"github.com/ringwall/ringwall/core/source/cloudstack"
)

// CloudStack answers a call of CloudStack's agent.
func (c *Client) CloudStack(ctx context.Context, in cloudstack.Call) (cloudstack.Answer, error) {
	return call[cloudstack.Answer](ctx, c, "cloudstack", in)
}
