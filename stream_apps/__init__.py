"""The stream side: Kafka's records become Redis tables, and clients read those."""
