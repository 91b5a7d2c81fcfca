"""
The text of a notice (mail that failed, is late, or was late): an RFC 3464 report. Pure.

Takes what is known of a message and of some of its recipients; gives the notice in pieces, so that neither
many recipients nor a large message are ever held whole. What came from the network is made harmless:
one line, no control characters, ASCII in C{message/delivery-status}. A notice about mail that asked for
SMTPUTF8 shows addresses in UTF-8, in the parts that RFC 6533 has for that. Answers to bounce(8) and to the
structure of its default templates (bounce(5)); the words are our own.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

from attrs import frozen

from qmqpd_tx.address.syntax import quote_address
from qmqpd_tx.bounce.records import FailedRecipient

LINE_LENGTH = 79
"""The longest line that is not one long word."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]+")
_NOT_ASCII = re.compile(r"[^ -~]")
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")


class Kind(enum.Enum):
    """What a notice is about; the value is the RFC 3464 action, but for mail that was handed on."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"


class Audience(enum.Enum):
    """Who a notice is for."""

    SENDER = "sender"
    POSTMASTER = "postmaster"


@frozen(slots=True)
class Report:
    """
    What a notice is about.

    @ivar kind: what became of the recipients.
    @ivar audience: for whom.
    @ivar hostname: C{myhostname}.
    @ivar mail_name: for the name of the C{X-...-Queue-ID} fields.
    @ivar queue_id: the message that it is about.
    @ivar sender: its sender, in internal form, as the notice shows it.
    @ivar to: who gets the notice, in internal form.
    @ivar arrival_time: when the message arrived, POSIX seconds.
    @ivar utc_offset: seconds east of UTC at that time.
    @ivar now: POSIX seconds.
    @ivar eight_bit: whether the message has bytes above 127.
    @ivar whole: whether the message is attached, or its headers only.
    @ivar internationalized: whether something of the message needs SMTPUTF8: a header, its sender, one of the
        recipients that this is about.
    @ivar warning_time: C{delay_warning_time}, seconds.
    @ivar lifetime: C{maximal_queue_lifetime}, seconds.
    """

    kind: Kind
    audience: Audience
    hostname: str
    mail_name: str
    queue_id: str
    sender: bytes
    to: bytes
    arrival_time: float
    utc_offset: int
    now: float
    eight_bit: bool
    whole: bool
    warning_time: float
    lifetime: float
    internationalized: bool = False

    @property
    def boundary(self) -> str:
        """The MIME boundary; at most 70 characters (RFC 2046 section 5.1.1)."""
        return f"{self.queue_id}.{int(self.now)}/{self.hostname}"[:70]


def one_line(text: str) -> str:
    """
    @return: a text from elsewhere as one harmless line.
    """
    return " ".join(_UNPRINTABLE.sub(" ", text).split()) or "unknown error"


def _ascii(text: str) -> str:
    return _NOT_ASCII.sub("?", one_line(text))


def shown(address: bytes, internationalized: bool = False) -> str:
    """
    @param internationalized: whether it may be UTF-8.
    @return: an address in external form, otherwise in ASCII.
    """
    text = quote_address(address).decode("utf-8", "surrogateescape")
    return _UNPRINTABLE.sub("?", text) if internationalized else _NOT_ASCII.sub("?", text)


def _typed(address: bytes, internationalized: bool) -> str:
    """
    @return: an address with its type (RFC 3464 section 2.1.2, RFC 6533 section 3).
    """
    text = shown(address, internationalized)
    return f"{'rfc822' if text.isascii() else 'utf-8'}; {text}"


def fold(text: str) -> str:
    """
    @return: a line broken at spaces, its continuation indented by four; with its line end.
    """
    lines = [""]
    for word in text.split(" "):
        if not lines[-1].strip():
            lines[-1] += word
        elif len(lines[-1]) + 1 + len(word) > LINE_LENGTH:
            lines.append("    " + word)
        else:
            lines[-1] += " " + word
    return "\n".join(lines) + "\n"


_GREETING = """\
This is the mail system at host {host}.

"""

_WORDS = {
    (Kind.FAILED, Audience.SENDER): """\
Your message could not be delivered to the recipients below, and no
further attempt will be made. The reason follows each address. Your
message, or its headers if it is long, is attached.

If you need help, write to the postmaster and include this report.

""",
    (Kind.FAILED, Audience.POSTMASTER): """\
A message could not be delivered to the recipients below. This copy is
for the postmaster.

""",
    (Kind.DELAYED, Audience.SENDER): """\
THIS IS ONLY A WARNING: you need not send your message again.

For more than {age} it could not be delivered to the recipients
below. The reason follows each address. It is tried again and again
until it is {limit} old. The headers of your message are
attached.

If you need help, write to the postmaster and include this report.

""",
    (Kind.DELAYED, Audience.POSTMASTER): """\
A message is late for the recipients below, and is tried again. This copy
is for the postmaster.

""",
    (Kind.DELIVERED, Audience.SENDER): """\
Your message was late, and has now been delivered to the recipients
below. Where it was handed on to another mail system, that one may still
write to you about it.

""",
}

_SUBJECTS = {
    (Kind.FAILED, Audience.SENDER): ("Undelivered Mail Returned to Sender", "auto-replied"),
    (Kind.FAILED, Audience.POSTMASTER): ("Postmaster Copy: Undelivered Mail", "auto-generated"),
    (Kind.DELAYED, Audience.SENDER): ("Delayed Mail (still being retried)", "auto-replied"),
    (Kind.DELAYED, Audience.POSTMASTER): ("Postmaster Warning: Delayed Mail", "auto-generated"),
    (Kind.DELIVERED, Audience.SENDER): ("Successful Mail Delivery Report", "auto-replied"),
}

GLOBAL_STATUS = "global-delivery-status"
"""What C{message/delivery-status} is when it may have UTF-8 (RFC 6533)."""

EIGHT_BIT = "Content-Transfer-Encoding: 8bit\n"

_ATTACHED = {
    (True, False): "message/rfc822",
    (False, False): "text/rfc822-headers",
    (True, True): "message/global",
    (False, True): "message/global-headers",
}
"""How the message is attached: by whether it is whole, and whether it is marked for SMTPUTF8."""

_UNITS = (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def duration(seconds: float) -> str:
    """
    @return: a time for people, in the largest unit in which it is a whole number: C{4 hours}.
    """
    whole = int(seconds)
    for unit, length in _UNITS:
        if whole and whole % length == 0:
            count = whole // length
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "0 seconds"


def lead(report: Report, recipients: Iterable[FailedRecipient]) -> Iterator[bytes]:
    """
    All that comes before the attached message.

    @param recipients: read twice.
    """
    recipients = list(recipients)
    internationalized = report.internationalized
    words = [_describe(recipient, report.kind, internationalized) for recipient in recipients]
    encoding = "7bit" if all(word.isascii() for word in words) else "8bit"
    plain = not (report.eight_bit or internationalized)
    whole_encoding = "7bit" if plain and encoding == "7bit" else "8bit"
    subject, submitted = _SUBJECTS[report.kind, report.audience]
    boundary = report.boundary
    yield (
        f"From: Mail Delivery System <MAILER-DAEMON>\n"
        f"Subject: {subject}\n"
        f"To: {quote_address(report.to).decode('utf-8', 'surrogateescape')}\n"
        f"Auto-Submitted: {submitted}\n"
        f"MIME-Version: 1.0\n"
        f"Content-Type: multipart/report; report-type=delivery-status;\n"
        f'\tboundary="{boundary}"\n'
        f"Content-Transfer-Encoding: {whole_encoding}\n"
        f"\n"
        f"This is a MIME-encapsulated message.\n"
        f"\n"
        f"--{boundary}\n"
        f"Content-Description: Notification\n"
        f"Content-Type: text/plain; charset=utf-8\n"
        f"Content-Transfer-Encoding: {encoding}\n"
        f"\n"
    ).encode("utf-8", "surrogateescape")
    yield (
        (_GREETING + _WORDS[report.kind, report.audience])
        .format(host=report.hostname, age=duration(report.warning_time), limit=duration(report.lifetime))
        .encode()
    )
    for word in words:
        yield (word + "\n").encode("utf-8", "replace")
    yield (
        f"--{boundary}\n"
        f"Content-Description: Delivery report\n"
        f"Content-Type: message/{GLOBAL_STATUS if internationalized else 'delivery-status'}\n"
        f"{EIGHT_BIT if internationalized else ''}"
        f"\n"
        f"Reporting-MTA: dns; {report.hostname}\n"
        f"X-{report.mail_name}-Queue-ID: {report.queue_id}\n"
        f"X-{report.mail_name}-Sender: {_typed(report.sender, internationalized)}\n"
        f"Arrival-Date: {_date(report.arrival_time, report.utc_offset)}\n"
        f"\n"
    ).encode()
    for recipient in recipients:
        yield (_status(recipient, report) + "\n").encode()
    what = "Message" if report.kind is Kind.DELIVERED else "Undelivered Message"
    if not report.whole:
        what += " Headers"
    kind = _ATTACHED[report.whole, internationalized]
    yield (
        f"--{boundary}\n"
        f"Content-Description: {what}\n"
        f"Content-Type: {kind}\n"
        f"Content-Transfer-Encoding: {'7bit' if plain else '8bit'}\n"
        f"\n"
        f"Return-Path: <{quote_address(report.sender).decode('utf-8', 'surrogateescape')}>\n"
    ).encode("utf-8", "surrogateescape")


def tail(report: Report) -> bytes:
    """
    @return: what comes after the attached message, which ends in a newline.
    """
    return f"\n--{report.boundary}--\n".encode()


def _describe(recipient: FailedRecipient, kind: Kind, internationalized: bool) -> str:
    also = ""
    if recipient.original != recipient.address:
        also = f" (originally <{shown(recipient.original, internationalized)}>)"
    via = f" delivery via {one_line(recipient.relay)}:" if kind is Kind.DELIVERED else ""
    return fold(f"<{shown(recipient.address, internationalized)}>{also}:{via} {one_line(recipient.text)}")


def _status(recipient: FailedRecipient, report: Report) -> str:
    original = recipient.original if b"@" in recipient.original else recipient.address
    action = report.kind.value
    if report.kind is Kind.DELIVERED and recipient.remote_mta is not None:
        # Another host has it, and need not tell the sender what it does with it (RFC 3464 section 2.3.3).
        action = "relayed"
    lines = [
        f"Final-Recipient: {_typed(recipient.address, report.internationalized)}\n",
        f"Original-Recipient: {_typed(original, report.internationalized)}\n",
        f"Action: {action}\n",
        f"Status: {recipient.dsn if _STATUS.fullmatch(recipient.dsn) else '5.0.0'}\n",
    ]
    if recipient.remote_mta is not None:
        lines.append(f"Remote-MTA: dns; {_ascii(recipient.remote_mta)}\n")
    if recipient.diagnostic is not None:
        lines.append(fold(f"Diagnostic-Code: smtp; {_ascii(recipient.diagnostic)}"))
    else:
        lines.append(fold(f"Diagnostic-Code: X-{report.mail_name}; {_ascii(recipient.text)}"))
    if report.kind is Kind.DELAYED:
        until = _date(report.arrival_time + report.lifetime, report.utc_offset)
        lines.append(f"Will-Retry-Until: {until}\n")
    return "".join(lines)


def _date(seconds: float, utc_offset: int) -> str:
    zone = timezone(timedelta(seconds=utc_offset)) if utc_offset else UTC
    return format_datetime(datetime.fromtimestamp(int(seconds), zone))
