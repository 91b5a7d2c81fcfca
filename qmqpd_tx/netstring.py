"""
Netstrings, without I/O: writing, and incremental reading within bounds.

A netstring is C{length ":" bytes ","} (U{https://cr.yp.to/proto/netstrings.txt}). Like Postfix's, this
reader takes leading zeros, and reads a length without digits as zero.

Takes bytes in any chunking and gives the same results for every chunking; holds at most one
netstring of at most the limit, whatever arrives. Fails with L{NetstringError}, which says which of two
things is wrong: the form, or the size. Promises nothing about durability.
"""

from __future__ import annotations

import enum
import re

from attrs import frozen

LARGEST_LENGTH = 2**63 - 1
"""The largest length that is read at all; a larger one is refused at the digit that makes it so."""

COMMA = 0x2C
COLON = 0x3A

_digits = re.compile(rb"[0-9]*").match
_LARGEST_DIGITS = len(str(LARGEST_LENGTH))


class Fault(enum.Enum):
    """What can be wrong with a netstring; the value is Postfix's text for it."""

    FORMAT = "netstring format error"
    TOO_LONG = "netstring length exceeds storage limit"


class NetstringError(ValueError):
    """
    The bytes are not an acceptable netstring.

    @ivar fault: what is wrong.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


def encode(data: bytes) -> bytes:
    """
    @return: C{data} as a netstring.
    """
    return b"%d:%b," % (len(data), data)


def encoded_size(length: int) -> int:
    """
    @return: how many bytes the netstring of C{length} bytes takes.
    """
    return len(str(length)) + length + 2


@frozen(slots=True)
class LengthProgress:
    """
    How far the length part of a netstring has been read.

    @ivar value: the number so far.
    @ivar position: where reading stopped in the data.
    @ivar complete: whether the colon was read.
    """

    value: int
    position: int
    complete: bool


def read_length(data: bytes, position: int, stop: int, value: int = 0) -> LengthProgress:
    """
    Read the length part of a netstring, as far as there are bytes.

    @param data: the bytes.
    @param position: where to start.
    @param stop: where to stop at the latest.
    @param value: the number that the digits of earlier data gave.
    @return: how far it got.
    @raise NetstringError: C{TOO_LONG} at the digit that takes the number above L{LARGEST_LENGTH},
        C{FORMAT} at anything but a digit or a colon.
    """
    match = _digits(data, position, stop)
    end = match.end() if match is not None else position
    if end > position:
        # A length may have any number of leading zeros, and int() is slow and limited for long ones.
        significant = data[position:end].lstrip(b"0") if value == 0 else data[position:end]
        if len(significant) > _LARGEST_DIGITS:
            raise NetstringError(Fault.TOO_LONG)
        if significant:
            value = value * 10 ** len(significant) + int(significant)
            if value > LARGEST_LENGTH:
                raise NetstringError(Fault.TOO_LONG)
    if end == stop:
        return LengthProgress(value, end, False)
    if data[end] != COLON:
        raise NetstringError(Fault.FORMAT)
    return LengthProgress(value, end + 1, True)


class _Phase(enum.Enum):
    LENGTH = enum.auto()
    BODY = enum.auto()
    COMMA = enum.auto()


class NetstringReader:
    """Reads a stream of netstrings, each of at most C{limit} bytes."""

    __slots__ = ("_body", "_length", "_limit", "_phase")

    def __init__(self, limit: int) -> None:
        """
        @param limit: the largest acceptable length; a larger one is refused when it is announced.
        """
        self._limit = limit
        self._phase = _Phase.LENGTH
        self._length = 0
        self._body = bytearray()

    @property
    def between(self) -> bool:
        """
        Whether no netstring is begun and unfinished.
        """
        return self._phase is _Phase.LENGTH and not self._body and self._length == 0

    def feed(self, data: bytes) -> list[bytes]:
        """
        @param data: the next bytes.
        @return: the netstrings that are complete now.
        @raise NetstringError: the bytes are not acceptable; complete netstrings before them in the
            same C{data} are lost, and the reader is not to be used again.
        """
        found: list[bytes] = []
        position = 0
        end = len(data)
        while position < end:
            if self._phase is _Phase.LENGTH:
                progress = read_length(data, position, end, self._length)
                self._length = progress.value
                position = progress.position
                if progress.complete:
                    if self._length > self._limit:
                        raise NetstringError(Fault.TOO_LONG)
                    self._phase = _Phase.BODY if self._length else _Phase.COMMA
            elif self._phase is _Phase.BODY:
                taken = data[position : position + self._length - len(self._body)]
                self._body += taken
                position += len(taken)
                if len(self._body) == self._length:
                    self._phase = _Phase.COMMA
            else:
                if data[position] != COMMA:
                    raise NetstringError(Fault.FORMAT)
                position += 1
                found.append(bytes(self._body))
                self._body.clear()
                self._length = 0
                self._phase = _Phase.LENGTH
        return found
