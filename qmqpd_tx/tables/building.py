"""
Building and changing indexed files, whatever their format.

Takes puts and deletes, keeps them in memory, and gives them to the format at L{DraftWriter.commit}, all at
once. A new file is written beside the old one, made durable, and takes its place: whoever reads the old one
goes on with that, and a failure or a crash leaves it as it was. Fails with L{ConfigError} that names the
file. Answers to Postfix's mkmap library.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO

from attrs import frozen
from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.indexed import Ends, stored
from qmqpd_tx.tables.interface import ITableWriter


@frozen(slots=True)
class Draft:
    """
    How an indexed file is to be written.

    @ivar setting: gives the text of a parameter.
    @ivar mode: the permissions of a file that was not there.
    @ivar group: its group, or L{None}: whatever the system gives it. Where that is not permitted, likewise.
    @ivar ends: how keys and values are to end; C{EITHER}: as is usual for the format.
    @ivar timeout: seconds to wait for somebody else's lock.
    """

    setting: Callable[[str], str]
    mode: int = 0o644
    group: int | None = None
    ends: Ends = Ends.EITHER
    timeout: float = 5.0


class Replacement:
    """
    A new version of a file, under another name until it is complete.

    @ivar path: the name of the unfinished file.
    @ivar target: the file that it is to be.
    @raise ConfigError: it cannot be made.
    """

    def __init__(self, target: str, draft: Draft) -> None:
        self.target = target
        try:
            self._descriptor, self.path = tempfile.mkstemp(
                prefix=os.path.basename(target) + ".", suffix=".tmp", dir=os.path.dirname(target) or "."
            )
        except OSError as error:
            raise ConfigError(f"open database {target}: {error.strerror}") from None
        try:
            self._permit(draft)
        except BaseException:
            self.abort()
            raise

    def _permit(self, draft: Draft) -> None:
        """As its predecessor has it, or else as the draft says."""
        try:
            before = os.stat(self.target)
        except FileNotFoundError:
            mode, user, group = draft.mode, -1, -1 if draft.group is None else draft.group
        else:
            mode, user, group = before.st_mode & 0o7777, before.st_uid, before.st_gid
        # Who may not give it away keeps it, and nobody gets more rights than he has given.
        with contextlib.suppress(PermissionError):
            os.fchown(self._descriptor, user, group)
        os.fchmod(self._descriptor, mode)

    def stream(self) -> BinaryIO:
        """
        @return: the unfinished file, for writing.
        """
        return os.fdopen(os.dup(self._descriptor), "wb")

    def finish(self) -> None:
        """
        Put it in the place of the old one, durably.

        @raise ConfigError: that cannot be done.
        """
        try:
            os.fsync(self._descriptor)
            os.rename(self.path, self.target)
        except OSError as error:
            self.abort()
            raise ConfigError(f"write database {self.target}: {error.strerror}") from None
        self._close()
        folder = os.open(os.path.dirname(self.target) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abort(self) -> None:
        """Remove it, unless it is finished. Safe to call twice."""
        if self._descriptor >= 0:
            self._close()
            os.unlink(self.path)

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


@implementer(ITableWriter)
class DraftWriter:
    """
    Collects changes.

    @param read: gives the value of exactly this key as the file has it now; L{None}: the file is empty.
    @param apply: makes the changes: values by key, L{None} for a key that goes. Completely or not at all.
    @param release: lets go of everything, whether applied or not.
    @param ends: how new keys and values end.
    """

    def __init__(
        self,
        read: Callable[[bytes], bytes | None],
        apply: Callable[[Mapping[bytes, bytes | None]], None],
        release: Callable[[], None],
        ends: Ends,
    ) -> None:
        self._read = read
        self._apply = apply
        self._release = release
        self._ends = ends
        self._changes: dict[bytes, bytes | None] = {}

    def has(self, key: bytes) -> bool:
        """See L{ITableWriter}."""
        return bool(key) and any(self._has(stored(key, ends)) for ends in (Ends.NUL, Ends.NOTHING))

    def _has(self, key: bytes) -> bool:
        if key in self._changes:
            return self._changes[key] is not None
        return self._read(key) is not None

    def put(self, key: bytes, value: bytes) -> None:
        """See L{ITableWriter}."""
        self.delete(key)
        self._changes[stored(key, self._ends)] = stored(value, self._ends)

    def delete(self, key: bytes) -> bool:
        """See L{ITableWriter}."""
        found = False
        for ends in (Ends.NUL, Ends.NOTHING) if key else ():
            each = stored(key, ends)
            if self._has(each):
                found = True
                self._changes[each] = None
        return found

    def commit(self) -> None:
        """See L{ITableWriter}."""
        try:
            self._apply(self._changes)
        finally:
            self._release()

    def abort(self) -> None:
        """See L{ITableWriter}."""
        self._release()


def nothing(key: bytes) -> None:
    """
    Reads a file that is empty.
    """


def written(
    replacement: Replacement, write: Callable[[BinaryIO, Iterable[tuple[bytes, bytes]]], None], what: str
) -> Callable[[Mapping[bytes, bytes | None]], None]:
    """
    @param write: writes a whole file of some format.
    @param what: the file, for messages.
    @return: what makes a new file of the changes.
    """

    def apply(changes: Mapping[bytes, bytes | None]) -> None:
        try:
            with replacement.stream() as stream:
                write(stream, ((key, value) for key, value in changes.items() if value is not None))
        except (OSError, ValueError) as error:
            replacement.abort()
            raise ConfigError(f"write database {what}: {error}") from None
        replacement.finish()

    return apply
