"""
Which mail is tried when a site is flushed.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, formatEvent
from zope.interface.verify import verifyObject

from qmqpd_tx.flush import valid_site
from qmqpd_tx.flush.ledger import Ledger, ledger_number
from qmqpd_tx.interfaces import IFlush, InsufficientSpace, NotEligible, TableError
from qmqpd_tx.message import LogKind, QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.memory import MemoryMailQueue
from qmqpd_tx.tables import ILookupTable, open_table
from tests.cleanup.support import NOW, config
from tests.flush.support import DOMAINS, FlushTestCase, queue_id, to
from tests.tables.test_combine import Slow

ONE, TWO, THREE = queue_id(1), queue_id(2), queue_id(3)
LEDGER = Ledger(MemoryMailQueue(), ledger_number("y.test"))


class FlushTests(FlushTestCase):
    """Asked for a site."""

    def test_interface(self) -> None:
        """
        The service provides what it says.
        """
        verifyObject(IFlush, self.service)

    def test_site(self) -> None:
        """
        All mail that waits for the site is tried, in the order in which it began to wait, and no other;
        dead destinations are forgotten first.
        """
        self.defer(1, b"a@y.test", b"b@y.test")
        self.defer(2, b"c@z.test")
        self.defer(3, b"c@other.test", b"d@Y.Test")
        self.assertEqual(self.flush("y.test"), [ONE, THREE])
        self.assertEqual(self.manager.forgotten, 1)
        self.assertEqual(self.flush("z.test"), [TWO])

    def test_case(self) -> None:
        """
        Upper and lower case are one site.
        """
        self.defer(1, b"a@y.test")
        self.assertEqual(self.flush("Y.TEST"), [ONE])

    def test_forgotten_when_tried(self) -> None:
        """
        What was tried is not tried again, until it is deferred again.
        """
        self.defer(1, b"a@y.test")
        self.defer(2, b"a@y.test")
        self.assertEqual(self.flush("y.test"), [ONE, TWO])
        self.assertEqual(self.flush("y.test"), [])
        self.assertEqual(self.manager.forgotten, 1)
        self.defer(2, b"a@y.test")
        self.assertEqual(self.flush("y.test"), [TWO])

    def test_once_each(self) -> None:
        """
        A message that is deferred again and again is written once and tried once.
        """
        for _ in range(100):
            self.defer(1, b"a@y.test", b"b@y.test")
        self.assertEqual(self.logs()[LEDGER.names[0]], 1)
        self.assertIsNone(self.service.deferred(ONE, to(b"a@y.test")))
        self.assertEqual(self.flush("y.test"), [ONE])

    def test_memory_limit(self) -> None:
        """
        With room for one message only, all are still tried once.
        """
        self.service.reconfigure(config(DOMAINS + "fast_flush_memory_limit = 1\n"))
        for number in (1, 2, 3, 1, 2, 3):
            self.defer(number, b"a@y.test")
        self.assertEqual(self.flush("y.test"), [ONE, TWO, THREE])

    def test_deferred_while_flushed(self) -> None:
        """
        A message that is deferred again before the flush is over waits for the next one.
        """
        self.defer(1, b"a@y.test")
        self.defer(2, b"a@y.test")
        deliver = self.manager.deliver

        def and_defer(queue_id: QueueID) -> Deferred[None]:
            self.service.deferred(queue_id, to(b"a@y.test"))
            return deliver(queue_id)

        self.manager.instead = and_defer
        for _ in range(3):
            self.assertEqual(self.flush("y.test"), [ONE, TWO])

    def test_gone(self) -> None:
        """
        Messages that were delivered or removed meanwhile are passed over, and forgotten.
        """
        self.defer(1, b"a@y.test")
        self.defer(2, b"a@y.test")
        self.manager.gone.add(ONE)
        self.assertEqual(self.flush("y.test"), [TWO])
        self.manager.gone.clear()
        self.assertEqual(self.flush("y.test"), [])

    def test_cannot_be_opened(self) -> None:
        """
        A message in trouble is logged, and tried again with the next flush.
        """
        self.defer(1, b"a@y.test")
        self.defer(2, b"a@y.test")
        self.manager.stuck.add(ONE)
        with capturedLogs() as events:
            self.assertEqual(self.flush("y.test"), [TWO])
        self.assertIn(
            f'{ONE}: flush "y.test": {ONE}: input/output error', [formatEvent(event) for event in events]
        )
        self.manager.stuck.clear()
        self.assertEqual(self.flush("y.test"), [ONE])

    def test_active_already(self) -> None:
        """
        A message that was active before is not forgotten: that attempt may be at its end.
        """
        self.defer(1, b"a@y.test")
        self.manager.instead = lambda queue_id: succeed(False)
        self.assertEqual(self.successResultOf(self.service.flush_site("y.test")), 1)
        self.manager.instead = self.manager.deliver
        self.assertEqual(self.flush("y.test"), [ONE])

    def test_two_at_a_time(self) -> None:
        """
        Two requests for one site do not hinder each other.
        """
        self.defer(1, b"a@y.test")
        waiting: list[Deferred[bool]] = []

        def slowly(queue_id: QueueID) -> Deferred[bool]:
            waiting.append(Deferred())
            return waiting[-1]

        self.manager.instead = slowly
        first, second = self.service.flush_site("y.test"), self.service.flush_site("y.test")
        self.assertNoResult(first)
        self.defer(2, b"a@y.test")
        waiting.pop().callback(True)
        self.assertEqual(self.successResultOf(first), 1)
        self.assertNoResult(second)
        waiting.pop().callback(True)
        self.assertEqual(self.successResultOf(second), 1)
        self.manager.instead = self.manager.deliver
        self.assertEqual(self.flush("y.test"), [])


class EligibilityTests(FlushTestCase):
    """Which sites are served."""

    def refused(self, site: str) -> str:
        """
        @return: why a site is not flushed.
        """
        failure = self.failureResultOf(self.service.flush_site(site), NotEligible)
        return failure.getErrorMessage()

    def test_not_configured(self) -> None:
        """
        A site that is not in C{fast_flush_domains} is refused in Postfix's words, whatever waits for it.
        """
        self.defer(1, b"a@other.test")
        self.assertEqual(
            self.refused("Other.test"), 'Flush service is not configured for destination "Other.test"'
        )
        self.assertEqual(self.manager.tried, [])

    def test_disabled(self) -> None:
        """
        An empty list turns the service off.
        """
        self.service.reconfigure(config("fast_flush_domains =\n"))
        self.assertIsNone(self.service.deferred(ONE, to(b"a@y.test")))
        self.assertEqual(self.refused("y.test"), 'Flush service is not configured for destination "y.test"')

    def test_default(self) -> None:
        """
        By default, the sites are C{relay_domains}.
        """
        self.service.reconfigure(config("relay_domains = r.test\n"))
        self.defer(1, b"a@r.test", b"a@y.test")
        self.assertEqual(self.flush("r.test"), [ONE])
        self.assertIn("not configured", self.refused("y.test"))

    def test_subdomains(self) -> None:
        """
        A domain stands for those under it where C{parent_domain_matches_subdomains} says so, as it does by
        default; each is a site of its own.
        """
        self.defer(1, b"a@w.y.test")
        self.defer(2, b"a@y.test")
        self.assertEqual(self.flush("w.y.test"), [ONE])
        self.assertEqual(self.flush("y.test"), [TWO])
        self.service.reconfigure(config(DOMAINS + "parent_domain_matches_subdomains =\n"))
        self.assertIn("not configured", self.refused("w.y.test"))

    def test_waits_for_a_table(self) -> None:
        """
        The list may have tables that ask a server; a message is recorded when they have answered.
        """
        yes: Deferred[bytes | None] = Deferred()
        slow = Slow(yes, succeed(None), succeed(None), succeed(b"x"), succeed(b"x"))
        opened: list[str] = []

        def open_slow(text: str, parameter: str) -> ILookupTable:
            opened.append(parameter)
            return open_table(text, parameter, [slow])

        self.service = self.make("fast_flush_domains = a.test slow:x\n", open_table=open_slow)
        self.service.startService()
        waiting = self.service.deferred(ONE, to(b"a@y.test"))
        assert waiting is not None
        self.assertNoResult(waiting)
        self.assertEqual(self.logs(), {})
        yes.callback(b"any")
        self.successResultOf(waiting)
        self.assertIn("not configured", self.refused("z.test"))
        self.assertEqual(self.flush("y.test"), [ONE])
        self.defer(2, b"a@Y.test")
        self.assertEqual(slow.asked, [b"y.test", b"z.test", b"test", b"y.test", b"y.test"])
        self.assertEqual(opened, ["fast_flush_domains"])

    def test_table_cannot_say(self) -> None:
        """
        A table that fails is logged; mail for other sites is recorded, and a flush says why it cannot be.
        """
        self.service.reconfigure(config("fast_flush_domains = y.test fail:x\n"))
        with capturedLogs() as events:
            self.defer(1, b"a@z.test", b"a@y.test")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [f"{ONE}: fast_flush_domains: table fail:x: query error: Application error"],
        )
        self.assertEqual(self.flush("y.test"), [ONE])
        self.failureResultOf(self.service.flush_site("z.test"), TableError)

    def test_literal(self) -> None:
        """
        An address literal can be a site.
        """
        self.service.reconfigure(config("fast_flush_domains = [192.0.2.1]\n"))
        self.defer(1, b"a@[192.0.2.1]")
        self.assertEqual(self.flush("[192.0.2.1]"), [ONE])

    def test_no_site(self) -> None:
        """
        What cannot be a site is refused in Postfix's words, and cut when it is long.
        """
        self.service.reconfigure(config("fast_flush_domains = static:all\n"))
        for site in ("", " ", "a b", "[127.0.0.1]:25", "127.0.0.1", "y.test.", "@y.test", "a@y.test", "a/b"):
            expected = f'Cannot flush mail queue - invalid destination: "{site}"'
            self.assertEqual(self.refused(site), expected)
        for site in ("../x", "-x", "[1.2.3", "y.test\0", "y\n"):
            self.assertIn("invalid destination", self.refused(site))
        self.assertIn('"' + "a" * 100 + '..."', self.refused("a" * 300))

    def test_odd_recipients(self) -> None:
        """
        Recipients whose domain cannot be a site are not recorded, even if everything is eligible.
        """
        self.service.reconfigure(config("fast_flush_domains = static:all\n"))
        for address in (b"", b"postmaster", b"a@", b"a@../../etc", b"a@b\0c", b"a@" + b"x" * 300, b"a@\xff"):
            self.assertIsNone(self.service.deferred(ONE, to(address)), address)

    def test_valid_site(self) -> None:
        """
        Host names and address literals.
        """
        for site in ("y.test", "localhost", "[192.0.2.1]", "[IPv6:::1]", "b\u00fccher.test"):
            self.assertTrue(valid_site(site), site)


class RestartTests(FlushTestCase):
    """What another process finds."""

    def test_restart(self) -> None:
        """
        Nothing is lost.
        """
        self.defer(1, b"a@y.test", b"a@z.test")
        self.defer(2, b"a@y.test")
        self.restart()
        self.defer(3, b"a@y.test")
        self.assertEqual(self.flush("y.test"), [ONE, TWO, THREE])
        self.restart()
        self.assertEqual(self.flush("y.test"), [])
        self.assertEqual(self.flush("z.test"), [ONE])

    def test_stopped_in_a_flush(self) -> None:
        """
        A stop in the middle of a flush loses neither what was not tried nor what was deferred since.
        """
        self.defer(1, b"a@y.test")
        self.defer(2, b"a@y.test")
        self.manager.instead = lambda _: Deferred()
        failures: list[object] = []
        self.service.flush_site("y.test").addErrback(failures.append)
        self.defer(3, b"a@y.test")
        self.successResultOf(self.service.stopService())
        self.assertEqual(len(failures), 1)
        self.manager.instead = self.manager.deliver
        self.restart()
        self.assertEqual(sorted(self.flush("y.test")), [ONE, TWO, THREE])
        self.assertEqual(self.flush("y.test"), [])

    @given(crash=st.integers(1, 25), again=st.integers(1, 25))
    def test_crash_anywhere(self, crash: int, again: int) -> None:
        """
        Whichever operation is the last of the process, twice: each message that was reported as
        recorded and not tried since is found.
        """
        self.setUp()
        owed: set[QueueID] = set()
        number = 0
        for steps in (crash, again):
            crashing = _Crashing(self.queue, steps)

            def deliver(queue_id: QueueID, crashing: _Crashing = crashing) -> Deferred[None]:
                if not crashing.step():
                    return Deferred()
                owed.discard(queue_id)
                return self.manager.deliver(queue_id)

            service = self.make(DOMAINS, crashing)  # type: ignore[arg-type]
            self.manager.instead = deliver
            service.startService()
            for _ in range(4):
                for _ in range(2):
                    number += 1
                    waiting = service.deferred(queue_id(number), to(b"a@y.test"))
                    if waiting is None or waiting.called:
                        owed.add(queue_id(number))
                if not crashing.dead:
                    service.flush_site("y.test").addErrback(lambda _: None)
            service.running = 0
        self.manager.instead = self.manager.deliver
        self.restart()
        found = set(self.flush("y.test"))
        self.assertLessEqual(owed, found)

    def test_names(self) -> None:
        """
        Records are in logs whose names no message ever has, short and without characters of a path.
        """
        self.service.reconfigure(config("fast_flush_domains = static:all\n"))
        for site in (b"y.test", b"[IPv6:2001:db8::1]", b"x" * 60 + b".test", b"..."):
            self.defer(1, b"a@" + site)
        names = self.logs()
        self.assertGreater(len(names), 3)
        for name in names:
            self.assertTrue(queueid.valid(name))
            self.assertLess(queueid.decode(name), 1_000_000_000_000_000)
            self.assertLess(name, queueid.encode(int(NOW * 1e6)))


class _Crashing:
    """
    A queue of which nothing more is heard after some operations.

    @ivar dead: whether that is so.
    """

    def __init__(self, queue: object, steps: int) -> None:
        self._queue = queue
        self._left = steps
        self.dead = False

    def __getattr__(self, name: str) -> object:
        operation = getattr(self._queue, name)

        return lambda *args: operation(*args) if self.step() else Deferred()

    def step(self) -> bool:
        """
        @return: whether the process is still there to do something.
        """
        self.dead = self._left == 0
        self._left -= not self.dead
        return not self.dead


class TroubleTests(FlushTestCase):
    """A store that fails."""

    def test_not_written(self) -> None:
        """
        What cannot be recorded is logged and does not hold up anything; the next deferral records it.
        """
        append = self.queue.append_log

        def full(kind: LogKind, name: QueueID, records: Sequence[bytes], durable: bool) -> Deferred[None]:
            return fail(InsufficientSpace("no space left on device"))

        self.queue.append_log = full  # type: ignore[method-assign]
        with capturedLogs() as events:
            self.defer(1, b"a@y.test")
        said = [formatEvent(event) for event in events]
        self.assertIn(f'{ONE}: record that mail waits for "y.test": no space left on device', said)
        self.queue.append_log = append  # type: ignore[method-assign]
        self.defer(1, b"a@y.test")
        self.restart()
        self.assertEqual(self.flush("y.test"), [ONE])

    def test_not_read(self) -> None:
        """
        A record that cannot be read fails the request, and is still there.
        """
        self.defer(1, b"a@y.test")
        read = self.queue.read_log
        self.queue.read_log = lambda *_: fail(InsufficientSpace("bad disk"))  # type: ignore[method-assign]
        self.failureResultOf(self.service.flush_site("y.test"), InsufficientSpace)
        self.queue.read_log = read  # type: ignore[method-assign]
        self.assertEqual(self.flush("y.test"), [ONE])

    def test_start_without_a_list(self) -> None:
        """
        A list of sites that cannot be read is logged; a site that is asked for is found all the same.
        """
        self.defer(1, b"a@y.test")
        self.successResultOf(self.service.stopService())
        read = self.queue.read_log
        self.queue.read_log = lambda *_: fail(InsufficientSpace("bad disk"))  # type: ignore[method-assign]
        with capturedLogs() as events:
            self.restart()
        self.assertIn("read fast flush records: bad disk", [formatEvent(event) for event in events])
        self.queue.read_log = read  # type: ignore[method-assign]
        self.assertEqual(self.flush("y.test"), [ONE])

    def test_damaged_record(self) -> None:
        """
        A record that is no queue id is passed over.
        """
        self.defer(1, b"a@y.test")
        appended = self.queue.append_log(LogKind.FLUSH, LEDGER.names[0], [b"\xff../x", b""], False)
        self.successResultOf(appended)
        self.manager.gone |= {QueueID("\ufffd../x"), QueueID("")}
        self.assertEqual(self.flush("y.test"), [ONE])

    def test_site_limit(self) -> None:
        """
        More sites than C{fast_flush_site_limit} are not recorded, with one warning; room is made for others
        when mail for a site is gone.
        """
        self.service.reconfigure(config(DOMAINS + "fast_flush_site_limit = 2\nfast_flush_purge_time = 1s\n"))
        with capturedLogs() as events:
            for number, site in enumerate((b"a", b"b", b"c", b"d"), 1):
                self.defer(number, b"x@" + site + b".y.test")
        said = [text for event in events if "fast_flush_site_limit" in (text := formatEvent(event) or "")]
        self.assertEqual(len(said), 1)
        self.assertEqual(self.flush("c.y.test"), [])
        self.assertEqual(self.flush("a.y.test"), [ONE])
        self.clock.advance(1000)
        self.defer(4, b"x@d.y.test")
        self.assertEqual(self.flush("d.y.test"), [queue_id(4)])
