"""delivery: the ASGI app that readers talk to. It reads the Redis tables, and Postgres where they cannot answer."""
