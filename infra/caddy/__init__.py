"""The gateway: Caddy in front of the API and of delivery, so that clients see one origin."""
