"""The writer of the Redis tables: Lua scripts that decide by seq, and the class that calls them."""
