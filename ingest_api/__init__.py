"""The write side: HTTP requests become log entries and outbox rows, and nothing else leaves this program."""
