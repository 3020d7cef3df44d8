"""The benchmarks' decisions: what changed, what a rate is, what a plot shows."""
