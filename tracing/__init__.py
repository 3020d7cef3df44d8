"""Spans, and their way to a collector: what the programs share of tracing. It knows none of them, and OpenTelemetry is
imported where spans are exported (otlp.py), by nobody else."""
