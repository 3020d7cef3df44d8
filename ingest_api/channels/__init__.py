"""Channels: where a user's messages are sent besides the user's own clients."""
