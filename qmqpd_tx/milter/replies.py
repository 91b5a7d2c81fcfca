"""
What a filter answers. Sans-I/O.

Takes a packet, gives one of the values below; what is cut short or has something left over raises
L{MilterError<qmqpd_tx.milter.protocol.MilterError>}. Answers to the public descriptions of what Sendmail's
libmilter speaks.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

from attrs import frozen

from qmqpd_tx.milter.protocol import MilterError, take_number


class Answer(enum.Enum):
    """A reply without arguments; the value is the command byte."""

    ACCEPT = b"a"
    CONNECTION_FAILED = b"f"
    CONTINUE = b"c"
    DISCARD = b"d"
    PROGRESS = b"p"
    REJECT = b"r"
    SHUTDOWN = b"4"
    SKIP = b"s"
    TEMPFAIL = b"t"


@frozen(slots=True)
class ReplyCode:
    """Refuse with this SMTP reply: C{550 5.7.1 text}."""

    text: bytes


@frozen(slots=True)
class Quarantine:
    """Hold the message."""

    reason: bytes


@frozen(slots=True)
class AddHeader:
    """Add a header at the end."""

    name: bytes
    value: bytes


@frozen(slots=True)
class InsertHeader:
    """Insert a header behind the first C{index} headers."""

    index: int
    name: bytes
    value: bytes


@frozen(slots=True)
class ChangeHeader:
    """Give the C{index}-th header of that name, from 1, another value; an empty one removes it."""

    index: int
    name: bytes
    value: bytes


@frozen(slots=True)
class ChangeSender:
    """Another envelope sender, with ESMTP arguments."""

    address: bytes
    arguments: tuple[bytes, ...] = ()


@frozen(slots=True)
class AddRecipient:
    """One recipient more, with ESMTP arguments."""

    address: bytes
    arguments: tuple[bytes, ...] = ()


@frozen(slots=True)
class DeleteRecipient:
    """One recipient less."""

    address: bytes


@frozen(slots=True)
class ReplaceBody:
    """The next piece of another body; lines end in CR LF, and pieces anywhere."""

    data: bytes


Change = AddHeader | InsertHeader | ChangeHeader | ChangeSender | AddRecipient | DeleteRecipient | ReplaceBody
"""What a filter may do to a message at its end."""

Reply = Answer | ReplyCode | Quarantine | Change
"""All that a filter may answer."""

REPLY_SYMBOLS: Mapping[bytes, str] = {
    b"+": "SMFIR_ADDRCPT",
    b"-": "SMFIR_DELRCPT",
    b"2": "SMFIR_ADDRCPT_PAR",
    b"4": "SMFIR_SHUTDOWN",
    b"a": "SMFIR_ACCEPT",
    b"b": "SMFIR_REPLBODY",
    b"c": "SMFIR_CONTINUE",
    b"d": "SMFIR_DISCARD",
    b"e": "SMFIR_CHGFROM",
    b"f": "SMFIR_CONN_FAIL",
    b"h": "SMFIR_ADDHEADER",
    b"i": "SMFIR_INSHEADER",
    b"m": "SMFIR_CHGHEADER",
    b"p": "SMFIR_PROGRESS",
    b"q": "SMFIR_QUARANTINE",
    b"r": "SMFIR_REJECT",
    b"s": "SMFIR_SKIP",
    b"t": "SMFIR_TEMPFAIL",
    b"y": "SMFIR_REPLYCODE",
}
"""What libmilter's documentation calls the replies, for the log."""

_ANSWERS = {answer.value: answer for answer in Answer}


def decode_reply(packet: bytes) -> Reply | None:
    """
    @param packet: command byte and data.
    @return: what it says; L{None} for a reply that is not known.
    @raise MilterError: it is cut short.
    """
    code, data = packet[:1], packet[1:]
    simple = _ANSWERS.get(code)
    if simple is not None:
        if data:
            raise MilterError(f"reply SMFIR_{simple.name} was followed by {len(data)} data bytes")
        return simple
    match code:
        case b"b":
            return ReplaceBody(data)
        case b"y":
            return ReplyCode(_strings(data, 1)[0])
        case b"q":
            return Quarantine(_strings(data, 1)[0])
        case b"h":
            name, value = _strings(data, 2)
            return AddHeader(name, value)
        case b"i":
            return InsertHeader(*_numbered_header(data))
        case b"m":
            return ChangeHeader(*_numbered_header(data))
        case b"+":
            return AddRecipient(_strings(data, 1)[0])
        case b"-":
            return DeleteRecipient(_strings(data, 1)[0])
        case b"2":
            return AddRecipient(*_with_arguments(data))
        case b"e":
            return ChangeSender(*_with_arguments(data))
        case _:
            return None


def _numbered_header(data: bytes) -> tuple[int, bytes, bytes]:
    index, rest = take_number(data)
    name, value = _strings(rest, 2)
    return index, name, value


def _with_arguments(data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    address, *arguments = _all_strings(data)
    return address, tuple(arguments)


def _strings(data: bytes, count: int) -> list[bytes]:
    found = _all_strings(data)
    if len(found) < count:
        raise MilterError("packet too short for string")
    if len(found) > count:
        raise MilterError("left-over data after the last string")
    return found


def _all_strings(data: bytes) -> list[bytes]:
    if not data:
        raise MilterError("packet too short for string")
    if not data.endswith(b"\0"):
        raise MilterError("missing string null terminator")
    return data[:-1].split(b"\0")


_REPLY_TEXT = re.compile(rb"([45])[0-9][0-9][ -](([245])\.[0-9]{1,3}\.[0-9]{1,3}(?=[ \t]|\Z))?", re.ASCII)


def reply_text(text: bytes) -> tuple[bool, bytes] | None:
    """
    @param text: an SMTP reply as filters give it: a single C{%} means nothing, a doubled one is one.
    @return: whether it is permanent, and its text, with the enhanced status code if it has one; L{None} when
        it is not a refusal.
    """
    match = _REPLY_TEXT.match(text)
    if match is None or (match.group(3) is not None and match.group(3) != match.group(1)):
        return None
    return match.group(1) == b"5", re.sub(rb"%(%?)", rb"\1", text[4:])
