"""Live streams: who watches what, what each client has been sent, and how it goes on after a break."""
