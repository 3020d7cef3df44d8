"""Users: registering, and the own profile."""
