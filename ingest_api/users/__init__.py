"""Users: registering."""
