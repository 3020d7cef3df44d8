"""What goes wrong with the embedded stack, as sentences for the person who started it."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot do what it was asked to; the message says why, and what to do about it."""
