"""Who is calling: passwords, the authorization server, access tokens, and the principal of a request."""
