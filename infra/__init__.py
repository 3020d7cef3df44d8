"""What the programs run on: configuration of the servers, and the embedded stack (`infra.local`)."""
