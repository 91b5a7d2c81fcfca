"""
Why is this message waiting: what C{postqueue --explain} shows. Pure, but for reading a queue that no
service has.

Takes what the service answered, or with L{from_files} what the queue files say; gives lines for people: who
the message is for, what became of the last attempt, when the next one is, and what it waits for until then.
Of a stopped service only what is on disk can be told: no routes, windows or dead destinations.

Answers to: nothing in Postfix.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qmqpd_tx.address import quote_address
from qmqpd_tx.admin.listing import NULL_SENDER, printable
from qmqpd_tx.bounce.records import decode_log
from qmqpd_tx.message import Queue
from qmqpd_tx.spool.inspect import QueueListing, find_message

RECIPIENTS = 1000
"""How many recipients are explained."""

DELIVERING = "being delivered"
"""The reason of what is not waiting at all."""

_STOPPED = {"reason": "the service", "text": "the mail system is not running"}

_QUEUES: Mapping[Queue, Mapping[str, str]] = {
    Queue.HOLD: {"reason": "its release from hold", "text": "it is on hold until somebody releases it"},
    Queue.CORRUPT: {
        "reason": "somebody to look at a damaged file",
        "text": "its file was damaged; look at it, and requeue or delete it",
    },
}
"""What is waited for in these queues, whether the service runs or not."""


def from_files(folder: Path, queue_id: str) -> dict[str, Any]:
    """
    @param folder: C{queue_directory}.
    @return: an explanation, in the shape of a running service's.
    @raise MessageNotFound: there is no such message.
    @raise OSError: the queue cannot be read.
    """
    found = find_message(str(folder), queue_id, RECIPIENTS)
    waits: list[dict[str, Any]] = []
    attempt = found.due if found.queue is Queue.DEFERRED else None
    if found.queue in _QUEUES:
        waits.append(dict(_QUEUES[found.queue]))
    else:
        waits.append(dict(_STOPPED))
    if attempt is not None:
        text = "it has failed before, and is tried again after a while"
        waits.append({"reason": "its next attempt", "text": text, "until": attempt})
    if found.problem is not None:
        waits.append({"reason": "somebody to look at a damaged file", "text": found.problem})
    return {
        "queue_id": found.queue_id,
        "queue": found.queue.value,
        "sender": _text(found.sender),
        "size": found.size,
        "arrival_time": found.arrival_time,
        "recipient_count": found.recipient_count,
        "recipients": list(_recipients(found, attempt, waits)),
        "more": found.more_recipients,
        "waits": waits,
    }


def _recipients(
    found: QueueListing, attempt: float | None, waits: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    tried = {failed.address: failed for failed in decode_log(list(found.reasons))}
    for address in found.recipients:
        last = tried.get(address)
        yield {
            "address": _text(address),
            "original": _text(last.original if last else address),
            "transport": None,
            "nexthop": None,
            "last": {"dsn": last.dsn, "text": last.text, "relay": last.relay} if last else None,
            "next_attempt": attempt,
            "waits": waits,
        }


def _text(address: bytes) -> str:
    return address.decode("utf-8", "backslashreplace")


def quoted(explained: dict[str, Any]) -> dict[str, Any]:
    """
    @return: an explanation with its addresses quoted where SMTP quotes them, as in the queue listing.
    """
    recipients = [
        {**one, "address": _quote(one["address"]), "original": _quote(one["original"])}
        for one in explained["recipients"]
    ]
    return {**explained, "sender": _quote(explained["sender"]), "recipients": recipients}


def _quote(address: str) -> str:
    raw = address.encode("utf-8", "backslashreplace")
    return quote_address(raw).decode("utf-8", "backslashreplace") if raw else ""


def in_words(explained: Mapping[str, Any], now: float) -> Iterator[str]:
    """
    @param explained: an explanation, its addresses L{quoted}.
    @param now: POSIX seconds.
    @return: its lines, without their ends; nothing in them can drive a terminal.
    """
    sender = printable(explained["sender"]) or NULL_SENDER
    arrived = _ago(explained["arrival_time"], now)
    yield f"{explained['queue_id']}: {explained['queue']}, {explained['size']} bytes from {sender}"
    yield f"    arrived       {arrived}"
    recipients = explained["recipients"]
    number = f"{len(recipients)}{' or more' if explained['more'] else ''}"
    yield f"    recipients    {number} of {explained['recipient_count']} still to do"
    shared = [one for one in explained["waits"] if not recipients or one not in recipients[0]["waits"]]
    yield from _waits(shared, now, None)
    for recipient in recipients:
        yield ""
        yield from _recipient(recipient, now)
    if explained["more"]:
        yield ""
        yield f"(the first {len(recipients)} recipients; there are others)"


def _recipient(recipient: Mapping[str, Any], now: float) -> Iterator[str]:
    yield printable(recipient["address"])
    if recipient["original"] != recipient["address"]:
        yield f"    sent to       {printable(recipient['original'])}"
    if recipient["transport"] is not None:
        yield f"    destination   {_join(recipient['transport'], recipient['nexthop'])}"
    last = recipient["last"]
    if last is not None:
        relay = "" if last["relay"] == "none" else f", relay {printable(last['relay'])}"
        yield f"    last status   {printable(last['dsn'])}{relay}: {printable(last['text'])}"
    elif recipient["waits"] and recipient["waits"][0]["reason"] != DELIVERING:
        yield "    last status   none known"
    if recipient["next_attempt"] is not None:
        yield f"    next attempt  {_when(recipient['next_attempt'], now)}"
    yield from _waits(recipient["waits"], now, recipient["next_attempt"])


def _join(transport: str, nexthop: str | None) -> str:
    return printable(f"{transport}:{nexthop}" if nexthop else transport)


def _waits(waits: Sequence[Mapping[str, Any]], now: float, said: float | None) -> Iterator[str]:
    for number, waiting in enumerate(waits):
        reason, text = printable(waiting["reason"]), printable(waiting["text"])
        label = "waits for" if number == 0 else "and for"
        if reason == DELIVERING:
            label = "now"
            words = reason
        else:
            words = reason if text == reason else f"{reason}: {text}"
        if waiting.get("since") is not None:
            words += f", since {_ago(waiting['since'], now)}"
        if waiting.get("until") not in (None, said):
            words += f", until {_when(waiting['until'], now)}"
        yield f"    {label:13} {words}"


def _clock(when: float) -> str:
    return time.strftime("%a %b %d %H:%M:%S", time.localtime(when))


def _when(when: float, now: float) -> str:
    left = when - now
    return f"{_clock(when)}, in {duration(left)}" if left > 0 else f"{_clock(when)}, now"


def _ago(when: float, now: float) -> str:
    return f"{_clock(when)}, {duration(max(now - when, 0))} ago"


def duration(seconds: float) -> str:
    """
    @return: a time span in its two largest units, as in C{4 min 20 s} or C{2 d 3 h}.
    """
    left = max(round(seconds), 0)
    numbers: list[tuple[int, str]] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        number, left = divmod(left, size)
        if number or numbers:
            numbers.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in numbers[:2] if number) or "0 s"
