"""The process that keeps declared connectors running: looks once per second, decides by pure rules, restarts what
failed, and says what only a person can put right."""
