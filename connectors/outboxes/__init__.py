"""Several outboxes: each streams a share of the conversations by a publication, a slot and a connector of its own."""
