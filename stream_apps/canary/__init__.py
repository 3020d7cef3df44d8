"""The canary: a client like any other that writes to every partition all the time, and notices when what it writes does
not come back. It knows the system by its HTTP alone, and Kafka's way to choose partitions."""
