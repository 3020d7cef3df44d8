"""What runs inside Kafka Connect: the connectors' settings, and the program that applies and supervises them."""
