// Package pathbench measures what a packet pays for its policy: ratios to the
// same bridge with connection tracking and no rules, all from one run.
//
//	go test -run '^$' -bench . ./conformance/pathbench
package pathbench
