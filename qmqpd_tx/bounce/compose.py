"""
The text of a non-delivery notice: an RFC 3464 report. Pure.

Takes what is known of a message and of its failed recipients; gives the notice in pieces, so that neither
many recipients nor a large message are ever held whole. What came from the network is made harmless:
one line, no control characters, ASCII in C{message/delivery-status}. Answers to bounce(8) and to the
structure of its default template; the words are our own.
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


class Audience(enum.Enum):
    """Who a notice is for."""

    SENDER = "sender"
    POSTMASTER = "postmaster"


@frozen(slots=True)
class Report:
    """
    What a notice is about.

    @ivar audience: for whom.
    @ivar hostname: C{myhostname}.
    @ivar mail_name: for the name of the C{X-...-Queue-ID} fields.
    @ivar queue_id: the message that failed.
    @ivar sender: its sender, in internal form, as the notice shows it.
    @ivar to: who gets the notice, in internal form.
    @ivar arrival_time: when the message arrived, POSIX seconds.
    @ivar utc_offset: seconds east of UTC at that time.
    @ivar now: POSIX seconds.
    @ivar eight_bit: whether the message has bytes above 127.
    @ivar whole: whether the message is attached, or its headers only.
    """

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


def shown(address: bytes) -> str:
    """
    @return: an address in external form, in ASCII.
    """
    return _NOT_ASCII.sub("?", quote_address(address).decode("utf-8", "surrogateescape"))


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

Your message could not be delivered to the recipients below, and no
further attempt will be made. The reason follows each address. Your
message, or its headers if it is long, is attached.

If you need help, write to the postmaster and include this report.

"""

_POSTMASTER_GREETING = """\
This is the mail system at host {host}.

A message could not be delivered to the recipients below. This copy is
for the postmaster.

"""

_SUBJECTS = {
    Audience.SENDER: ("Undelivered Mail Returned to Sender", "auto-replied"),
    Audience.POSTMASTER: ("Postmaster Copy: Undelivered Mail", "auto-generated"),
}


def lead(report: Report, recipients: Iterable[FailedRecipient]) -> Iterator[bytes]:
    """
    All that comes before the attached message.

    @param recipients: read twice.
    """
    recipients = list(recipients)
    words = [_describe(recipient) for recipient in recipients]
    encoding = "7bit" if all(word.isascii() for word in words) else "8bit"
    whole_encoding = "8bit" if report.eight_bit or encoding == "8bit" else "7bit"
    subject, submitted = _SUBJECTS[report.audience]
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
    greeting = _GREETING if report.audience is Audience.SENDER else _POSTMASTER_GREETING
    yield greeting.format(host=report.hostname).encode()
    for word in words:
        yield (word + "\n").encode("utf-8", "replace")
    yield (
        f"--{boundary}\n"
        f"Content-Description: Delivery report\n"
        f"Content-Type: message/delivery-status\n"
        f"\n"
        f"Reporting-MTA: dns; {report.hostname}\n"
        f"X-{report.mail_name}-Queue-ID: {report.queue_id}\n"
        f"X-{report.mail_name}-Sender: rfc822; {shown(report.sender)}\n"
        f"Arrival-Date: {_date(report.arrival_time, report.utc_offset)}\n"
        f"\n"
    ).encode()
    for recipient in recipients:
        yield (_status(recipient, report.mail_name) + "\n").encode()
    what, kind = (
        ("Undelivered Message", "message/rfc822")
        if report.whole
        else ("Undelivered Message Headers", "text/rfc822-headers")
    )
    yield (
        f"--{boundary}\n"
        f"Content-Description: {what}\n"
        f"Content-Type: {kind}\n"
        f"Content-Transfer-Encoding: {'8bit' if report.eight_bit else '7bit'}\n"
        f"\n"
        f"Return-Path: <{quote_address(report.sender).decode('utf-8', 'surrogateescape')}>\n"
    ).encode("utf-8", "surrogateescape")


def tail(report: Report) -> bytes:
    """
    @return: what comes after the attached message, which ends in a newline.
    """
    return f"\n--{report.boundary}--\n".encode()


def _describe(recipient: FailedRecipient) -> str:
    also = ""
    if recipient.original != recipient.address:
        also = f" (originally <{shown(recipient.original)}>)"
    return fold(f"<{shown(recipient.address)}>{also}: {one_line(recipient.text)}")


def _status(recipient: FailedRecipient, mail_name: str) -> str:
    original = recipient.original if b"@" in recipient.original else recipient.address
    lines = [
        f"Final-Recipient: rfc822; {shown(recipient.address)}\n",
        f"Original-Recipient: rfc822; {shown(original)}\n",
        "Action: failed\n",
        f"Status: {recipient.dsn if _STATUS.fullmatch(recipient.dsn) else '5.0.0'}\n",
    ]
    if recipient.remote_mta is not None:
        lines.append(f"Remote-MTA: dns; {_ascii(recipient.remote_mta)}\n")
    if recipient.diagnostic is not None:
        lines.append(fold(f"Diagnostic-Code: smtp; {_ascii(recipient.diagnostic)}"))
    else:
        lines.append(fold(f"Diagnostic-Code: X-{mail_name}; {_ascii(recipient.text)}"))
    return "".join(lines)


def _date(seconds: float, utc_offset: int) -> str:
    zone = timezone(timedelta(seconds=utc_offset)) if utc_offset else UTC
    return format_datetime(datetime.fromtimestamp(int(seconds), zone))
