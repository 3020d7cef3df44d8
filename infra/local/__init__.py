"""The embedded stack: every server and program of the project as ordinary processes, without containers."""
