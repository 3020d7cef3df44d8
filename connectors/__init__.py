"""What runs inside Kafka Connect: the connectors' settings, and the program that applies them over Connect's REST."""
