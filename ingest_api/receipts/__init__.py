"""Receipts: how far a participant has received and read."""
