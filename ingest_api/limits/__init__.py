"""Rate limits: how much one user, one conversation or one client address may ask for. No part of it decides on load."""
