"""Tests against real peers on loopback: one scenario a file; see L{tests.peers}."""
