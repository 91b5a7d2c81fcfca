"""
Large messages that wait for filters: on disk, with bounded memory, and gone afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import InsufficientSpace, SpoolError
from qmqpd_tx.message import Envelope
from qmqpd_tx.milter.keep import ContentKeeper
from tests.interop.scripted_milter import Script, replace_body
from tests.milter.memory import TOP, Lab


class SlowThreads:
    """
    Threads that do their work when a test says so.

    @ivar waiting: what is to be done.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self.waiting.append((result, lambda: function(*arguments)))
        if self.at_once:
            self.work()
        return result

    def work(self) -> None:
        """Do the next thing."""
        result, call = self.waiting.pop(0)
        try:
            value = call()
        except OSError:
            result.errback(Failure())
        else:
            result.callback(value)


def all_of(keeper: ContentKeeper, offset: int = 0) -> bytes:
    """
    @return: what a keeper has.
    """

    async def gather() -> bytes:
        return b"".join([piece async for piece in keeper.pieces(offset)])

    results: list[bytes] = []
    Deferred.fromCoroutine(gather()).addCallback(results.append)
    return results[0]


def open_files() -> int:
    """
    @return: how many files this process has open.
    """
    return len(os.listdir("/proc/self/fd"))


class KeeperTests(SynchronousTestCase):
    """What is kept."""

    @given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 100))
    def test_all_comes_back(self, pieces: list[bytes], offset: int) -> None:
        """In memory or on disk, everything is there, from anywhere on."""
        before = open_files()
        for threads in (None, SlowThreads(at_once=True)):
            keeper = ContentKeeper(64, self.folder, threads)
            for piece in pieces:
                self.assertIsNone(keeper.append(piece))
            whole = b"".join(pieces)
            self.assertEqual(keeper.size, len(whole))
            self.assertEqual(all_of(keeper, offset), whole[offset:])
            keeper.close()
            keeper.close()
        self.assertEqual(open_files(), before)
        self.assertEqual(os.listdir(self.folder), [])

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)

    def test_back_pressure(self) -> None:
        """While the disk is behind, the writer waits; the file has no name."""
        threads = SlowThreads()
        keeper = ContentKeeper(64, self.folder, threads)
        self.assertIsNone(keeper.append(b"a" * 65))
        self.assertIsNone(keeper.append(b"b" * 64))
        waiting = keeper.append(b"c")
        assert waiting is not None
        self.assertNoResult(waiting)
        threads.work()
        self.assertEqual(os.listdir(self.folder), [])
        self.successResultOf(waiting)
        threads.work()
        self.assertEqual(len(threads.waiting), 0)
        keeper.close()
        threads.work()

    def test_closed_while_writing(self) -> None:
        """A file that is being written is closed afterwards, not under way."""
        before = open_files()
        threads = SlowThreads()
        keeper = ContentKeeper(64, self.folder, threads)
        keeper.append(b"a" * 65)
        keeper.close()
        threads.work()
        threads.work()
        self.assertEqual(open_files(), before)

    def test_missing_folder(self) -> None:
        """When there is no place for the file, the reader hears of it."""
        threads = SlowThreads(at_once=True)
        keeper = ContentKeeper(64, self.folder + "/none", threads)
        keeper.append(b"a" * 65)
        failed: list[Any] = []
        Deferred.fromCoroutine(keeper.read(0, 10)).addErrback(failed.append)
        self.assertIsInstance(failed[0].value, OSError)
        keeper.close()


class StageTests(SynchronousTestCase):
    """Large messages, from end to end."""

    def test_large_message(self) -> None:
        """Body and recipients go through the disk and come back whole, also a new body."""
        threads = SlowThreads(at_once=True)
        text = f"milter_buffer_limit = 1024\nqueue_directory = {self.mktemp()}\n"
        os.mkdir(text.split()[-1])
        before = open_files()
        body = b"line\n" * 100000
        recipients = [b"r%d@example.org" % number for number in range(2000)]
        for replies, expected in (
            ({}, body),
            ({"eom": [*[replace_body(b"new line\r\n" * 6000)] * 5, b"c"]}, b"new line\n" * 30000),
        ):
            lab = Lab([Script(replies=replies, protocol=0x8 | 0x400)], text, in_thread=threads)
            outcome = lab.send(b"A: b\n\n" + body, recipients=recipients)
            self.assertEqual(outcome.content, TOP + b"A: b\n\n" + expected)
            assert outcome.stored is not None
            self.assertEqual([address for address, _ in outcome.stored.recipients], recipients)
            self.assertEqual(sum(len(piece) for (piece,) in outcome.sessions[0].named("body")), 600000)
        self.assertEqual(open_files(), before)

    def test_disk_full(self) -> None:
        """The failure says what it is."""
        for number, kind in ((28, InsufficientSpace), (5, SpoolError)):

            def broken(*arguments: object, number: int = number) -> Deferred[Any]:
                return fail(OSError(number, "no"))

            lab = Lab([Script()], "milter_buffer_limit = 1024\n", in_thread=broken)
            stage = lab.stage()
            stage.write(b"A: b\n\n" + b"x" * 5000)
            stage.envelope(Envelope(b"", 1.0), TOP)
            stage.recipient(b"a@b", b"a@b")
            self.failureResultOf(stage.commit(), kind)
            self.assertEqual(lab.queued(), [])

    def test_size(self) -> None:
        """The size grows as that of the real writer does."""
        lab = Lab([Script()])
        real, stage = lab.queue.create(1.0), lab.stage()
        for each in (real, stage):
            each.write(b"A: b\n\n" + b"x" * 5000)
        self.assertEqual(stage.size, real.size)
        for each in (real, stage):
            each.envelope(Envelope(b"s@example.com", 1.0), TOP)
            for number in range(100):
                each.recipient(b"r%d@example.org" % number, b"r%d" % number)
        self.assertTrue(abs(stage.size - real.size) < 500, (stage.size, real.size))
        real.abort()
        stage.abort()
