"""Benchmarks: how fast the system is, measured as its users would feel it. They assert nothing about speed."""
