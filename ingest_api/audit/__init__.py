"""The audit log: who did what about security, in a chain of hashes that shows every later change."""
