"""Audit: compares what Postgres, Kafka and the Redis tables hold, all the time and on command, and has faults repaired.

`python -m stream_apps.audit run` is the program, `python -m stream_apps.audit check` the command.
"""
