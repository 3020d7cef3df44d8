"""Load by Locust, for those who know it. What is measured with care is in tests/benchmarks."""
