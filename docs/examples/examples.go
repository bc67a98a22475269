// Package examples makes the example manifests of this folder available to the
// programs and tests that run them.
package examples

import _ "embed"

// WebTier is web-tier.yaml.
//
//go:embed web-tier.yaml
var WebTier []byte
