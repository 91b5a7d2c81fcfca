"""QMQP: the server (qmqpd(8)) and the client."""
