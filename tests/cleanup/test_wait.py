"""
Whole messages whose addresses are looked up, at once or later.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.interfaces import IntakeError, TableError
from qmqpd_tx.spool.memory import MemoryMailQueue
from qmqpd_tx.tables import ILookupTable
from tests.cleanup.maps import BASE, inline, warnings
from tests.cleanup.support import CLIENT, Arrivals, Intake, config

MAPS = (
    BASE
    + f"canonical_maps = {inline({'a@x.test': 'b@y.test', 'c@x.test': 'd'})}\n"
    + f"virtual_alias_maps = {inline({'two@x.test': '1@y.test, 2@y.test'})}\n"
    + "always_bcc = log@x.test\nmasquerade_domains = ex.test\n"
)


class MappedMessages(SynchronousTestCase):
    """Mail through tables in memory."""

    def test_everything(self) -> None:
        """
        Envelope and headers are mapped, and the C{From} header that is added has the mapped sender.
        """
        stored = Intake(MAPS).store(
            b"To:  a@x.test\nSubject: x\n\nb\n", b"u@host.ex.test", [b"two@x.test", b"c@x.test"]
        )
        self.assertEqual(stored.envelope.sender, b"u@ex.test")
        self.assertEqual(
            stored.recipients,
            [
                (b"1@y.test", b"two@x.test"),
                (b"2@y.test", b"two@x.test"),
                (b"d@origin.test", b"c@x.test"),
                (b"log@x.test", b"log@x.test"),
            ],
        )
        self.assertIn(b"To: b@y.test\n", stored.content)
        self.assertIn(b"\nFrom: u@ex.test\n", stored.content)

    def test_made_here(self) -> None:
        """
        Mail made here is mapped, too, but nobody gets a copy.
        """
        stored = Intake(MAPS).store(b"To: a@x.test\n\nb\n", b"", [b"two@x.test"], client=None)
        self.assertEqual([address for address, _ in stored.recipients], [b"1@y.test", b"2@y.test"])
        self.assertIn(b"To: b@y.test\n", stored.content)

    def test_broken_table(self) -> None:
        """
        A table that cannot say is a reason to come again, wherever it is needed.
        """
        for classes in ("envelope_sender", "envelope_recipient", "header_sender", "header_recipient"):
            intake = Intake(f"canonical_maps = fail:x\ncanonical_classes = {classes}\n")
            sent = intake.send([b"To: a@x.test\nFrom: a@x.test\n\nb\n"])
            error = self.failureResultOf(sent, IntakeError).value
            self.assertFalse(error.permanent)
            self.assertEqual(error.text, "Error: queue file write error")
            self.assertEqual(intake.arrivals.stored, [])

    def told(self, settings: str) -> list[str]:
        """
        @return: what the log says of a message that is refused because a table cannot say.
        """
        intake = Intake(BASE + settings)
        incoming = intake.cleanup.begin(CLIENT)
        with warnings() as seen:
            incoming.content(b"To: r@x.test\nCc: c@x.test\nFrom: f@x.test\n\nb\n")
            incoming.sender(b"s@a.ex.test")
            incoming.recipient(b"r@x.test")
            incoming.recipient(b"q@x.test")
            self.failureResultOf(incoming.finish(), IntakeError)
        return [line.replace(incoming.queue_id, "ID") for line in seen]

    def test_broken_table_in_the_log(self) -> None:
        """
        However many addresses there are, the log says once what a table could not say, in Postfix's words.
        """
        reason = "ID: table fail:x: query error: Application error"
        end = " -- message not accepted, try again later"
        for settings, problem in {
            "canonical_maps = fail:x": "canonical_maps map lookup problem for r@x.test",
            "sender_canonical_maps = fail:x": "sender_canonical_maps map lookup problem for f@x.test",
            "recipient_canonical_maps = fail:x\nrecipient_canonical_classes = envelope_recipient": (
                "recipient_canonical_maps map lookup problem for r@x.test"
            ),
            "virtual_alias_maps = fail:x": "virtual_alias_maps map lookup problem for r@x.test",
            "recipient_bcc_maps = fail:x": "recipient_bcc_maps map lookup problem",
            "sender_bcc_maps = fail:x": "sender_bcc_maps map lookup problem",
            "masquerade_domains = ex.test\nmasquerade_exceptions = fail:x": (
                "masquerade_exceptions map lookup problem"
            ),
        }.items():
            self.assertEqual(self.told(settings + "\n"), [reason, f"ID: {problem}{end}"])


class SlowTable:
    """
    A table that answers when it is told to.

    @ivar waiting: who waits, by key.
    """

    name = "slow:table"
    fixed_keys = False
    immediate = False
    stable = False
    sources = ()

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Deferred[bytes | None]]] = []

    def lookup(self, key: bytes) -> Deferred[bytes | None]:
        """See L{ILookupTable.lookup}."""
        waiter: Deferred[bytes | None] = Deferred()
        self.waiting.append((key, waiter))
        return waiter

    def close(self) -> None:
        """See L{ILookupTable.close}."""


class SlowMessages(SynchronousTestCase):
    """Mail through a table that takes its time."""

    def setUp(self) -> None:
        self.table = table = SlowTable()

        def open_table(text: str, parameter: str) -> ILookupTable:
            return table  # type: ignore[return-value]

        queue = MemoryMailQueue(None)
        queue.start()
        self.arrivals = Arrivals()
        self.cleanup = Cleanup(
            config=config(BASE + "canonical_maps = slow:x\nvirtual_alias_maps = slow:x\n"),
            clock=Clock(),
            queue=queue,
            arrivals=self.arrivals,
            open_table=open_table,
        )

    def send(self) -> Deferred[object]:
        """
        @return: the end of a message, all of which was given at once.
        """
        incoming = self.cleanup.begin(CLIENT)
        incoming.content(b"To: t@x.test, u@x.test\nX: y\nFrom: f@x.test\n\nbody\n")
        incoming.sender(b"s@x.test")
        incoming.recipient(b"r@x.test")
        incoming.recipient(b"q@x.test")
        finished: Deferred[object] = incoming.finish()
        return finished

    def answer(self) -> list[bytes]:
        """
        Answer all, until nothing more is asked.

        @return: what was asked.
        """
        asked = []
        while self.table.waiting:
            key, waiter = self.table.waiting.pop(0)
            asked.append(key)
            waiter.callback(None if key.startswith(b"new-") else b"new-" + key)
        return asked

    def test_in_order(self) -> None:
        """
        However late the answers are, the message is the same as if they had come at once.
        """
        finished = self.send()
        self.assertNoResult(finished)
        asked = self.answer()
        self.successResultOf(finished)
        (stored,) = self.arrivals.stored
        self.assertIn(b"To: new-t@x.test, new-u@x.test\nX: y\nFrom: new-f@x.test\n", stored.content)
        self.assertEqual(stored.envelope.sender, b"new-s@x.test")
        self.assertEqual(stored.recipients, [(b"new-r@x.test", b"r@x.test"), (b"new-q@x.test", b"q@x.test")])
        self.assertIn(b"r@x.test", asked)

    def test_failure(self) -> None:
        """
        When an answer does not come, the message is refused for now, and nothing is left.
        """
        finished = self.send()
        _, waiter = self.table.waiting.pop(0)
        waiter.errback(TableError("slow:table: away"))
        self.answer()
        error = self.failureResultOf(finished, IntakeError).value
        self.assertFalse(error.permanent)
        self.assertEqual(self.arrivals.stored, [])
