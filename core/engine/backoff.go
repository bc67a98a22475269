package engine

import (
	"math/rand/v2"
	"time"
)

// backoff doubles the pause with every failure, up to a limit, and spreads it
// by a fifth so that hosts that failed together do not return together.
type backoff struct {
	min, max time.Duration
	failures int
}

func (b *backoff) reset() { b.failures = 0 }

func (b *backoff) next() time.Duration {
	d := b.max
	if b.failures < 16 { // 2^16 times any pause is beyond max
		d = min(b.min<<b.failures, b.max)
	}
	b.failures++
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
