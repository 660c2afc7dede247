"""The library's own workload in a faulty world: drawn from a seed, judged, reduced when it fails."""
