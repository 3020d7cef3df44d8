"""Recover: after a replication slot was lost, finds which log entries were never streamed and brings exactly those back
through the outbox. `model.py` decides, `topic.py`, `log.py` and `adopt.py` read and write; `run.py` is the course."""
