"""
A cleanup service in memory, for the tests of the QMQP server: keeps what it is given, and can be told to be
slow, to refuse, or to break.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from qmqpd_tx.interfaces import FULL_TREATMENT, CommitAbandoned, ICleanup, IIncomingMessage, Treatment
from qmqpd_tx.message import ClientInfo, QueueID


@implementer(IIncomingMessage)
class MemoryMessage:
    """One message; C{waiting} holds the Deferreds of a slow store, C{commit} that of a slow commit."""

    def __init__(self, cleanup: MemoryCleanup, queue_id: QueueID, client: ClientInfo | None) -> None:
        self.cleanup = cleanup
        self.queue_id = queue_id
        self.client = client
        self.chunks: list[bytes] = []
        self.from_address: bytes | None = None
        self.verp_delimiters: bytes | None = None
        self.recipients: list[bytes] = []
        self.waiting: list[Deferred[None]] = []
        self.commit: Deferred[QueueID] | None = None
        self.aborted = False
        self.treatment = FULL_TREATMENT

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def _wait(self) -> Deferred[None] | None:
        if self.cleanup.slow_store is False:
            return None
        if self.cleanup.slow_store is None:
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self.waiting.append(deferred)
        return deferred

    def content(self, data: bytes) -> Any:
        assert not self.aborted
        self.chunks.append(data)
        return self._wait()

    def sender(self, address: bytes, verp_delimiters: bytes | None = None) -> None:
        assert not self.aborted
        assert self.from_address is None
        self.from_address = address
        self.verp_delimiters = verp_delimiters

    def recipient(self, address: bytes) -> Any:
        assert not self.aborted
        assert self.from_address is not None
        self.recipients.append(address)
        return self._wait()

    def finish(self) -> Any:
        assert not self.aborted
        if self.cleanup.finish_error is not None:
            return fail(self.cleanup.finish_error)
        self.commit = Deferred()
        commit = self.commit
        if not self.cleanup.slow_commit:
            self.done()
        return commit

    def done(self) -> None:
        """The disk has answered."""
        assert self.commit is not None
        commit, self.commit = self.commit, None
        self.cleanup.accepted.append(self)
        commit.callback(self.queue_id)

    def abort(self) -> None:
        assert not self.aborted
        self.aborted = True
        if self.commit is not None:
            commit, self.commit = self.commit, None
            commit.errback(CommitAbandoned("given up"))


@implementer(ICleanup)
class MemoryCleanup:
    """
    @ivar accepted: the messages that were promised.
    @ivar begun: all messages.
    @ivar slow_store: whether content and recipients give a Deferred: L{False} never, L{True} one that the
        test fires, L{None} one that has fired.
    @ivar slow_commit: whether the test ends commits with C{done()}.
    """

    def __init__(self) -> None:
        self.accepted: list[MemoryMessage] = []
        self.begun: list[MemoryMessage] = []
        self.slow_store: bool | None = False
        self.slow_commit = False
        self.begin_error: Exception | None = None
        self.finish_error: Exception | None = None

    def begin(
        self,
        client: ClientInfo | None,
        verp_delimiters: bytes | None = None,
        treatment: Treatment = FULL_TREATMENT,
    ) -> MemoryMessage:
        if self.begin_error is not None:
            raise self.begin_error
        message = MemoryMessage(self, QueueID(f"ID{len(self.begun) + 1}"), client)
        message.treatment = treatment
        self.begun.append(message)
        return message
