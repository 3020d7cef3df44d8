"""Doctor: what is wrong, or will be, with PostgreSQL, Kafka Connect and Kafka as change data capture needs them. The
readers collect facts and change nothing; the checks judge them and do no I/O."""
