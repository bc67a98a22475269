// Package nearest finds what a mistyped key was probably meant to be.
package nearest

import (
	"fmt"
	"strings"
)

// Key is the known key that looks most like word, or "" when none is close:
// more than a third of its letters would have to change. On a tie the first
// in known wins.
func Key(word string, known []string) string {
	best, least := "", 0
	for _, k := range known {
		d := distance(strings.ToLower(word), strings.ToLower(k))
		if len(word) >= 3 && strings.HasPrefix(k, strings.ToLower(word)) {
			d = 1 // an abbreviation
		}
		limit := max(2, len(k)/3)
		if d > limit || d >= len(k) {
			continue
		}
		if best == "" || d < least {
			best, least = k, d
		}
	}
	return best
}

// UnknownKey is the reason to give for a key that is not in known: the key it
// was probably meant to be, else all of them.
func UnknownKey(word string, known []string) string {
	if k := Key(word, known); k != "" {
		return fmt.Sprintf("unknown key; did you mean %s?", k)
	}
	return "unknown key; known here: " + strings.Join(known, ", ")
}

// distance is the number of letters to insert, delete, replace or swap with
// their neighbour (optimal string alignment) to make b of a. Long words are cut:
// no key is that long, and the cost is quadratic.
func distance(a, b string) int {
	const longest = 64
	a, b = a[:min(len(a), longest)], b[:min(len(b), longest)]
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
