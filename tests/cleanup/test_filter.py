"""
Whole messages through mail filters: what these change, with maps and checks around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address.smtputf8 import ADDRESSES, HEADERS
from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.interfaces import IntakeError, IStoredMessage
from qmqpd_tx.message import SMTPUTF8, Recipient
from qmqpd_tx.spool.memory import MemoryMailQueue
from tests.cleanup.maps import BASE, inline, warnings
from tests.cleanup.support import CLIENT, NOW, config, run
from tests.interop.scripted_milter import (
    Act,
    Script,
    Session,
    add_header,
    add_recipient,
    change_header,
    change_sender,
    delete_recipient,
    insert_header,
    replace_body,
)
from tests.milter.memory import ScriptedTransport


class FilterReactor(Clock):
    """
    Time, and connections to filters that follow scripts, by port.
    """

    def __init__(self, scripts: Sequence[Script]) -> None:
        super().__init__()
        self.advance(NOW)
        self.sessions: list[Session] = []
        self._scripts = scripts

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float, bindAddress: Any) -> None:
        """See L{IReactorTCP.connectTCP<twisted.internet.interfaces.IReactorTCP>}."""
        session = Session()
        self.sessions.append(session)
        transport = ScriptedTransport(self._scripts[port - 1001], session)
        transport.connection = factory.buildProtocol(None)
        transport.connection.makeConnection(transport)


class Filtering:
    """
    A cleanup service with filters.

    @ivar stored: what it has stored.
    """

    def __init__(self, scripts: Sequence[Script], text: str = "") -> None:
        names = ", ".join(f"inet:127.0.0.1:{number}" for number, _ in enumerate(scripts, start=1001))
        self.reactor = FilterReactor(scripts)
        self.queue = MemoryMailQueue()
        self.queue.start()
        self.stored: list[IStoredMessage] = []
        self.cleanup = Cleanup(
            config=config(BASE + f"non_smtpd_milters = {names}\n" + text),
            clock=self.reactor,
            queue=self.queue,
            arrivals=self,
        )

    def arrived(self, message: IStoredMessage) -> None:
        """See L{IArrivals<qmqpd_tx.interfaces.IArrivals>}."""
        self.stored.append(message)

    def begin(self, *recipients: bytes) -> Any:
        """
        @return: a message, all of which was given.
        """
        incoming = self.cleanup.begin(CLIENT)
        incoming.content(b"From: a@x.test\n\nbody\n")
        incoming.sender(b"s@x.test")
        for recipient in recipients:
            incoming.recipient(recipient)
        return incoming

    def recipients(self, *recipients: bytes) -> list[tuple[bytes, bool]]:
        """
        @return: who gets a message to these, and whether as a silent copy.
        """
        self.begin(*recipients).finish().addErrback(lambda failure: failure.raiseException())
        found: list[Recipient] = run(self.stored[-1].recipients(None, 100)).recipients
        return [(one.address, one.silent) for one in found]


class FilteredRecipients(SynchronousTestCase):
    """Recipients that a filter takes away and adds."""

    def changed(self, *steps: bytes, text: str = "") -> list[tuple[bytes, bool]]:
        """
        @return: who gets a message to a@ and b@ after that.
        """
        script = Script(replies={"eom": [*steps, b"c"]})
        return Filtering([script], text).recipients(b"a@x.test", b"b@x.test")

    def test_taken_away_and_added(self) -> None:
        """
        Who is taken away and added again gets the message.
        """
        self.assertEqual(
            self.changed(delete_recipient(b"<a@x.test>"), add_recipient(b"<a@x.test>")),
            [(b"b@x.test", False), (b"a@x.test", False)],
        )

    def test_added_and_taken_away(self) -> None:
        """
        Who is added and taken away again does not.
        """
        self.assertEqual(
            self.changed(add_recipient(b"<c@x.test>"), delete_recipient(b"<c@x.test>")),
            [(b"a@x.test", False), (b"b@x.test", False)],
        )

    def test_again_and_again(self) -> None:
        """
        The last word counts.
        """
        add, delete = add_recipient(b"<c@x.test>"), delete_recipient(b"<c@x.test>")
        self.assertEqual(
            self.changed(add, delete, add, add),
            [(b"a@x.test", False), (b"b@x.test", False), (b"c@x.test", False)],
        )

    def test_there_already(self) -> None:
        """
        Who is there already is not added; nor is who is there under another name, when the original addresses
        do not matter.
        """
        for text in ("", "enable_original_recipient = no\n"):
            self.assertEqual(
                self.changed(add_recipient(b"<A@X.test>"), text=text),
                [(b"a@x.test", False), (b"b@x.test", False)],
            )
        alias = f"virtual_alias_maps = {inline({'c@x.test': 'a@x.test'})}\n"
        self.assertEqual(
            self.changed(add_recipient(b"<c@x.test>"), text=alias + "enable_original_recipient = no\n"),
            [(b"a@x.test", False), (b"b@x.test", False)],
        )
        self.assertEqual(
            self.changed(add_recipient(b"<c@x.test>"), text=alias),
            [(b"a@x.test", False), (b"b@x.test", False), (b"a@x.test", False)],
        )

    def test_copies(self) -> None:
        """
        Nobody gets a copy because of an added recipient; the copy because of one that is taken away stays,
        unless it is taken away itself.
        """
        copies = {"c@x.test": "log@x.test", "b@x.test": "blog@x.test"}
        text = f"recipient_bcc_maps = {inline(copies)}\n"
        a, b, log = (b"a@x.test", False), (b"b@x.test", False), (b"blog@x.test", True)
        self.assertEqual(
            self.changed(add_recipient(b"<c@x.test>"), text=text), [a, b, log, (b"c@x.test", False)]
        )
        self.assertEqual(self.changed(delete_recipient(b"<b@x.test>"), text=text), [a, log])
        self.assertEqual(self.changed(delete_recipient(b"<blog@x.test>"), text=text), [a, b])

    def test_copies_of_sender(self) -> None:
        """
        A sender that a filter gives has its copies, beside those of the sender before.
        """
        copies = {"s@x.test": "old@x.test", "n@x.test": "new@x.test", "m@x.test": "new@x.test"}
        text = f"sender_bcc_maps = {inline(copies)}\n"
        old, new = (b"old@x.test", True), (b"new@x.test", True)
        a, b = (b"a@x.test", False), (b"b@x.test", False)
        one, two = change_sender(b"<n@x.test>"), change_sender(b"<m@x.test>")
        null, same = change_sender(b"<>"), change_sender(b"<s@x.test>")
        self.assertEqual(self.changed(text=text), [old, a, b])
        self.assertEqual(self.changed(one, text=text), [old, a, b, new])
        self.assertEqual(self.changed(one, null, two, same, text=text), [old, a, b, new])

    def test_original(self) -> None:
        """
        The original address of one that is added is the one after canonical mapping.
        """
        maps = inline({"c@x.test": "d@x.test"})
        aliases = inline({"d@x.test": "e@x.test"})
        filtering = Filtering(
            [Script(replies={"eom": [add_recipient(b"<c@x.test>"), b"c"]})],
            f"canonical_maps = {maps}\nvirtual_alias_maps = {aliases}\n",
        )
        filtering.recipients(b"a@x.test")
        found = run(filtering.stored[-1].recipients(None, 100)).recipients
        self.assertEqual((found[-1].address, found[-1].original), (b"e@x.test", b"d@x.test"))

    def test_headers_beyond_ascii(self) -> None:
        """
        A header that a filter brings counts for SMTPUTF8 where mail is looked at for that.
        """
        classes = "smtputf8_enable = yes\nsmtputf8_autodetect_classes = "
        value = "\u00e9".encode()
        for text, step, mark in (
            (classes + "qmqpd\n", add_header(b"X", value), HEADERS),
            (classes + "qmqpd\n", insert_header(0, b"X", value), HEADERS),
            (classes + "qmqpd\n", change_header(1, b"From", value), HEADERS),
            (classes + "qmqpd\n", replace_body(value), ADDRESSES),
            (classes + "qmqpd\n", add_header(b"X", b"x"), ADDRESSES),
            (classes + "sendmail\n", add_header(b"X", value), None),
        ):
            filtering = Filtering([Script(replies={"eom": [step, b"c"]})], text)
            filtering.recipients(b"a@x.test")
            self.assertEqual(filtering.stored[-1].envelope.attributes.get(SMTPUTF8), mark, (text, step))


class Failures(SynchronousTestCase):
    """Tables that cannot say."""

    def test_told_once(self) -> None:
        """
        The log says once what could not be found out, for a recipient or for a header that a filter adds.
        """
        reason = "ID: table fail:x: query error: Application error"
        for step, settings, expected in (
            (
                add_recipient(b"<new@x.test>"),
                "virtual_alias_maps = inline:{ {one@x.test = one@x.test} }, fail:x\n",
                [
                    reason,
                    "ID: virtual_alias_maps map lookup problem for new@x.test"
                    " -- message not accepted, try again later",
                ],
            ),
            (
                add_header(b"X", b"y"),
                "milter_header_checks = fail:x\n",
                [
                    reason,
                    "ID: milter_header_checks map lookup problem -- message not accepted, try again later",
                ],
            ),
        ):
            filtering = Filtering([Script(replies={"eom": [step, b"a"]})], settings)
            incoming = filtering.begin(b"one@x.test")
            with warnings() as seen:
                self.failureResultOf(incoming.finish(), IntakeError)
            self.assertEqual([line.replace(incoming.queue_id, "ID") for line in seen], expected)


class Ends(SynchronousTestCase):
    """A message that is given up while filters are asked."""

    def test_no_more_filters(self) -> None:
        """
        The filter that is asked is left, and no further one is asked.
        """
        for event in ("negotiate", "connect", "mail", "eom"):
            scripts = [Script(replies={event: [Act.HANG]}), Script()]
            filtering = Filtering(scripts, "milter_default_action = accept\n")
            incoming = filtering.begin(b"a@x.test")
            finished = incoming.finish()
            before = [list(session.events) for session in filtering.reactor.sessions]
            incoming.abort()
            self.failureResultOf(finished, IntakeError)
            after = filtering.reactor.sessions
            self.assertEqual(len(after), len(before), event)
            for session, events in zip(after, before, strict=True):
                self.assertIn(session.events[len(events)][0], ("dropped", "quit"))
                self.assertEqual(len(session.events), len(events) + 1)
            self.assertEqual(filtering.reactor.getDelayedCalls(), [])
            self.assertEqual(filtering.stored, [])
