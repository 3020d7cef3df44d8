"""Conversations: creating one with its participants."""
