"""Messages: sending one."""
