package scenarios

import "slices"

// All is every scenario.
func All() []Scenario {
	return slices.Concat(Rules(), SourceChecks(), Guards(), Receiving(), EgressAndPeers(), Flows(), FlowEnds(), Pairs(), HostTraffic(), Routed(), Modes(), Holes(), Families(), Found())
}
