"""
Postfix-shaped log lines out of structured events: what postlogd(8) is for Postfix.

Programs of this package log structured events (L{twisted.logger}) under C{qmqpd_tx.<program>};
L{MailLog} writes them as Postfix's lines, or as JSON, to a file, a standard stream or syslog.
"""

from qmqpd_tx.maillog.observer import MailLog

__all__ = ["MailLog"]
