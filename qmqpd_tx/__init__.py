"""A mail queue for people who send: QMQP in, durable on disk, delivered with Postfix semantics."""
