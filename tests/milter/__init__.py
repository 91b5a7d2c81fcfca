"""Tests of qmqpd_tx.milter, and of the stage of cleanup that uses it."""
