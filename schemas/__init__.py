"""The language that the three programs share: events, topics, keys, tokens, problems. No I/O, no framework."""
