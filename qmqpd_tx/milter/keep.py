"""
Content that waits for filters: in memory while it is small, then in a file without a name.

Takes bytes in order, gives them back from anywhere. Nothing here is durable: a message that is still with the
filters was not acknowledged. The file is made, written and read on threads; writers are asked to wait while
the disk is behind, so that at most two buffers are in memory. A failure of the disk is an C{OSError} for the
next L{ContentKeeper.append} that waits, and for L{ContentKeeper.read}.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import IO, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

CHUNK = 65536
"""How much is read at once, in bytes."""

InThread = Callable[..., "Deferred[Any]"]
"""Calls a function with arguments off the reactor's thread; gives a Deferred with what it returns."""


class ContentKeeper:
    """
    Bytes of one message.

    @ivar size: how many there are.
    """

    __slots__ = (
        "_closed",
        "_directory",
        "_error",
        "_file",
        "_flying",
        "_in_thread",
        "_limit",
        "_reading",
        "_tail",
        "_waiting",
        "_written",
        "size",
    )

    def __init__(self, limit: int, directory: str = "", in_thread: InThread | None = None) -> None:
        """
        @param limit: how many bytes are kept in memory before they go to the file.
        @param directory: where the file is.
        @param in_thread: does what takes time; L{None}: everything is kept in memory.
        """
        self.size = 0
        self._limit = limit
        self._directory = directory
        self._in_thread = in_thread
        self._tail = bytearray()
        self._flying = b""
        self._written = 0
        self._reading = 0
        self._file: IO[bytes] | None = None
        self._waiting: list[Deferred[None]] = []
        self._error: Exception | None = None
        self._closed = False

    def append(self, data: bytes) -> Deferred[None] | None:
        """
        @return: L{None}, or a Deferred that fires when there is room for more.
        """
        if self._closed or self._error is not None:
            return None
        self._tail += data
        self.size += len(data)
        if len(self._tail) <= self._limit or self._in_thread is None:
            return None
        if not self._flying:
            self._write()
            return None
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    async def read(self, offset: int, length: int) -> bytes:
        """
        @return: up to C{length} bytes from C{offset}; C{b""} at the end.
        @raise OSError: the disk failed.
        """
        while self._flying and self._error is None:
            settled: Deferred[None] = Deferred()
            self._waiting.append(settled)
            await settled
        if self._error is not None:
            raise self._error
        if offset >= self._written or self._in_thread is None or self._file is None:
            start = offset - self._written
            return bytes(self._tail[start : start + length])
        wanted = min(length, self._written - offset)
        self._reading += 1
        try:
            data: bytes = await self._in_thread(os.pread, self._file.fileno(), wanted, offset)
        finally:
            self._reading -= 1
            if self._closed:
                self._drop()
        return data

    async def pieces(self, offset: int = 0) -> AsyncIterator[bytes]:
        """
        @param offset: where to begin.
        @return: all that is there from then on, in pieces.
        """
        while data := await self.read(offset, CHUNK):
            yield data
            offset += len(data)

    def close(self) -> None:
        """
        Forget it all. Safe to call twice, and at any time.
        """
        if self._closed:
            return
        self._closed = True
        self._tail.clear()
        if not self._flying:
            self._drop()
        self._wake()

    # --- the file -------------------------------------------------------------------------------------

    def _write(self) -> None:
        assert self._in_thread is not None
        self._flying = bytes(self._tail)
        self._tail.clear()
        self._in_thread(_store, self._file, self._directory, self._written, self._flying).addCallbacks(
            self._stored, self._failed
        )

    def _stored(self, file: IO[bytes]) -> None:
        self._file = file
        self._written += len(self._flying)
        self._flying = b""
        if self._closed:
            self._drop()
        elif len(self._tail) > self._limit:
            self._write()
        self._wake()

    def _failed(self, failure: Failure) -> None:
        self._flying = b""
        value = failure.value
        self._error = value if isinstance(value, Exception) else OSError(str(value))
        self._tail.clear()
        if self._closed:
            self._drop()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _drop(self) -> None:
        if self._reading:
            # Its number must not become another file's while a thread reads.
            return
        file, self._file = self._file, None
        if file is not None and self._in_thread is not None:
            # To free the blocks of a large file takes a while, too.
            # It has no name any more: whatever goes wrong with that is nobody's loss.
            self._in_thread(file.close).addErrback(lambda _: None)


def _store(file: IO[bytes] | None, directory: str, offset: int, data: bytes) -> IO[bytes]:
    """
    Runs on a thread.
    """
    if file is None:
        file = tempfile.TemporaryFile(dir=directory or None, buffering=0)  # noqa: SIM115 (closed later)
    view = memoryview(data)
    while view:
        written = os.pwrite(file.fileno(), view, offset)
        offset += written
        view = view[written:]
    return file
