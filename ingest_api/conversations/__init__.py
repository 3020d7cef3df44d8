"""Conversations: creating one, its title, and who is in it."""
