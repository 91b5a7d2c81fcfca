"""
What happens to sites that nobody asks for.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs, formatEvent

from qmqpd_tx.flush.ledger import Ledger, ledger_number
from qmqpd_tx.interfaces import InsufficientSpace
from qmqpd_tx.message import LogKind
from tests.cleanup.support import config
from tests.flush.support import DOMAINS, FlushTestCase, queue_id

HOUR = 3600.0
ONE, TWO = queue_id(1), queue_id(2)


class RefreshTests(FlushTestCase):
    """fast_flush_refresh_time and fast_flush_purge_time."""

    def test_refresh(self) -> None:
        """
        After C{fast_flush_refresh_time} a site's mail is tried without a request, which empties its record.
        """
        self.defer(1, b"a@y.test")
        self.clock.pump([1000.0] * 43)
        self.assertEqual(self.manager.take(), [])
        self.clock.pump([1000.0])
        self.assertEqual(self.manager.take(), [ONE])
        self.assertEqual(self.flush("y.test"), [])

    def test_asked_for(self) -> None:
        """
        A request counts.
        """
        self.defer(1, b"a@y.test")
        self.clock.advance(6 * HOUR)
        self.flush("y.test")
        self.defer(1, b"a@y.test")
        self.clock.advance(7 * HOUR)
        self.assertEqual(self.manager.take(), [])
        self.clock.advance(6 * HOUR)
        self.assertEqual(self.manager.take(), [ONE])

    def test_after_restart(self) -> None:
        """
        Sites are found again, and the time goes on.
        """
        self.defer(1, b"a@y.test")
        self.clock.advance(11 * HOUR)
        self.restart()
        self.assertEqual(self.successResultOf(self.service.refresh()), 0)
        self.clock.advance(2 * HOUR)
        self.assertEqual(self.manager.take(), [ONE])

    def test_clock_set_back(self) -> None:
        """
        A site that was flushed in what is now the future is refreshed.
        """
        self.clock.advance(1000 * HOUR)
        self.flush("y.test")
        self.defer(1, b"a@y.test")
        self.clock.rightNow -= 500 * HOUR
        self.assertEqual(self.successResultOf(self.service.refresh()), 1)

    def test_purge(self) -> None:
        """
        A site for which nothing waits has no record, and is forgotten after C{fast_flush_purge_time}, which
        makes room for another.
        """
        self.service.reconfigure(config(DOMAINS + "fast_flush_purge_time = 1d\nfast_flush_site_limit = 2\n"))
        self.defer(1, b"a@y.test")
        self.defer(2, b"a@z.test")
        self.assertEqual(len(self.logs()), 3)
        self.flush("y.test")
        self.assertEqual(len(self.logs()), 2)
        self.clock.advance(23 * HOUR)
        self.defer(1, b"a@new.z.test")
        self.assertEqual(self.flush("new.z.test"), [])
        self.clock.advance(2 * HOUR)
        self.defer(1, b"a@new.z.test")
        self.assertEqual(self.flush("new.z.test"), [ONE])

    def test_list_stays_small(self) -> None:
        """
        Requests without end do not make the list of sites grow without end, and nothing is lost from it.
        """
        self.defer(1, b"a@z.test")
        for _ in range(3000):
            self.defer(2, b"a@y.test")
            self.flush("y.test")
        self.defer(2, b"a@y.test")
        self.successResultOf(self.service.refresh())
        self.assertLess(sum(self.logs().values()), 10)
        self.restart()
        self.clock.advance(13 * HOUR)
        self.assertEqual(sorted(self.manager.take()), [ONE, TWO])

    def test_trouble(self) -> None:
        """
        One site whose record cannot be read does not keep the others from being refreshed, nor the service
        from trying again.
        """
        self.defer(1, b"a@y.test")
        self.defer(2, b"a@z.test")
        names = Ledger(self.queue, ledger_number("y.test")).names
        read = self.queue.read_log

        def broken(kind: LogKind, name: str) -> Deferred[list[bytes]]:
            if name in names:
                return fail(InsufficientSpace("bad disk"))
            return read(kind, name)  # type: ignore[arg-type]

        self.queue.read_log = broken  # type: ignore[method-assign,assignment]
        with capturedLogs() as events:
            self.clock.advance(13 * HOUR)
        self.assertIn('refresh "y.test": bad disk', [formatEvent(event) for event in events])
        self.assertEqual(self.manager.take(), [TWO])
        self.queue.read_log = read  # type: ignore[method-assign]
        self.clock.advance(1000)
        self.assertEqual(self.manager.take(), [ONE])

    def test_stop(self) -> None:
        """
        A service that is stopped leaves no timer.
        """
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
