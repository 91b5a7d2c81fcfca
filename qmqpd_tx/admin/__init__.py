"""The C{qmqpd-tx} command, and the control socket by which it talks to the running service."""
