"""
Headers that a message must have, and what the log says of its Message-ID. Pure but for the log.

Takes a header section that has ended; gives the headers to put at its end. Answers to cleanup(8).
"""

from __future__ import annotations

from qmqpd_tx.address.syntax import quote_address
from qmqpd_tx.cleanup.dates import MailDate
from qmqpd_tx.cleanup.headers import HeaderSection
from qmqpd_tx.cleanup.settings import Settings
from qmqpd_tx.events import Logger
from qmqpd_tx.message import QueueID

log = Logger(namespace="qmqpd_tx.cleanup")


def missing_headers(
    headers: HeaderSection,
    settings: Settings,
    queue_id: QueueID,
    arrival: float,
    date: MailDate,
    add: bool,
) -> tuple[bytes, bytes]:
    """
    Make C{Message-Id}, C{Date} and recipient headers where they are missing; C{From} needs the sender: see
    L{missing_from}. Logs each message id.

    @param arrival: when the message arrived, POSIX seconds.
    @param add: whether headers are added (not to mail from elsewhere).
    @return: the headers, and the Message-ID of the message; C{b""} when it has none of its own.
    """
    message_id = b""

    def remark(resent: bool, value: bytes) -> None:
        nonlocal message_id
        if resent:
            log.info("{queue_id}: resent-message-id={message_id}", queue_id=queue_id, message_id=value)
        else:
            message_id = value
            log.info("{queue_id}: message-id={message_id}", queue_id=queue_id, message_id=value)

    prefix = b"Resent-" if headers.resent else b""
    missing = b""
    for resent, value in headers.message_ids:
        remark(resent, value)
    if not add:
        if not headers.message_ids:
            remark(False, b"<>")
        return b"", message_id
    if prefix.lower() + b"message-id" not in headers.names:
        value = b"<%b.%b@%b>" % (date.stamp(arrival), queue_id.encode(), settings.hostname)
        missing += b"%bMessage-Id: %b\n" % (prefix, value)
        remark(headers.resent, value)
    if prefix.lower() + b"date" not in headers.names:
        missing += b"%bDate: %b\n" % (prefix, date.render(arrival))
    if headers.resent and b"message-id" not in headers.names:
        remark(False, b"<>")
    if not (add and lacks_from(headers)):
        missing += undisclosed(headers, settings)
    return missing, message_id


def undisclosed(headers: HeaderSection, settings: Settings) -> bytes:
    """
    @return: the header in place of those with recipients, where there are none. It comes after C{From}.
    """
    if settings.undisclosed and headers.names.isdisjoint((b"to", b"cc", b"resent-to", b"resent-cc")):
        return settings.undisclosed + b"\n"
    return b""


def lacks_from(headers: HeaderSection) -> bool:
    """
    @return: whether the message needs L{missing_from}.
    """
    return (b"resent-from" if headers.resent else b"from") not in headers.names


def missing_from(headers: HeaderSection, sender: bytes) -> bytes:
    """
    @param sender: the envelope sender.
    @return: the header.
    """
    prefix = b"Resent-" if headers.resent else b""
    return b"%bFrom: %b\n" % (prefix, quote_address(sender) if sender else b"MAILER-DAEMON")
