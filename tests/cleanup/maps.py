"""
Maps of addresses, and what they make of a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from qmqpd_tx.cleanup.mapping import AddressMaps
from qmqpd_tx.cleanup.recipients import Addressees
from qmqpd_tx.message import QueueID
from tests.cleanup.support import config, run

ID = QueueID("ID")
BASE = "myorigin = origin.test\nmydestination = home.test\nrecipient_delimiter = +\n"


def inline(entries: dict[str, str]) -> str:
    """
    @return: a table of these entries.
    """
    return "inline:{" + ", ".join(f"{{{key} = {value}}}" for key, value in entries.items()) + "}"


def maps(**settings: str) -> AddressMaps:
    """
    @return: those of a configuration.
    """
    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
    return AddressMaps.from_config(config(BASE + text), own=lambda _: ())


def sender(made: AddressMaps, address: bytes) -> bytes:
    """
    @return: what an envelope sender becomes.
    """
    return run(made.sender(address, ID))


def recipients(made: AddressMaps, *addresses: bytes) -> list[tuple[bytes, bytes]]:
    """
    @return: where a message to these goes, with original addresses.
    """
    addressees = Addressees(made, ID)
    return [
        (one.address, one.original) for address in addresses for one in run(addressees.of_recipient(address))
    ]


def header(made: AddressMaps, line: bytes) -> bytes:
    """
    @return: what a header line becomes.
    """
    name, _, value = line.partition(b":")
    changed = run(made.header(name, value, ID))
    return line if changed is None else name + b":" + changed


@contextmanager
def warnings() -> Iterator[list[str]]:
    """
    @return: the texts of the warnings that are logged meanwhile.
    """
    seen: list[str] = []

    def observe(event: Any) -> None:
        if event["log_level"] is LogLevel.warn:
            shown = {
                key: value.decode("latin-1") if isinstance(value, bytes) else value
                for key, value in event.items()
            }
            seen.append(formatEvent(shown))

    globalLogPublisher.addObserver(observe)
    try:
        yield seen
    finally:
        globalLogPublisher.removeObserver(observe)
