"""
C{postsuper -h -H -d -r} on mail in every queue, and under delivery: the same as with a running Postfix.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.interop.qmgr_peers import Side, SideBySideTestCase, Stage, routes
from tests.interop.test_triggers import run
from tests.peers import free_port

SETTINGS = {
    "minimal_backoff_time": "5h",
    "maximal_backoff_time": "10h",
    "queue_run_delay": "5h",
    "smtp_destination_concurrency_limit": "2",
    "initial_destination_concurrency": "2",
}

UNKNOWN = "ABCDEF1234"


class HoldTests(SideBySideTestCase):
    """One queue of deferred mail, then mail that is active."""

    def postsuper(self, side: Side, *arguments: str, input: str = "") -> Sequence[str]:
        """
        @return: the lines on standard error.
        """
        status, words = run(side, ["postsuper", *arguments], input)
        self.assertEqual(status, 0, words)
        return words.splitlines()

    def deferred(self, side: Side, count: int) -> list[str]:
        """
        @return: the ids of new messages in the deferred queue.
        """
        ids = [side.send(b"user@dead.test") for _ in range(count)]
        for queue_id in ids:
            side.wait_queue(queue_id, "deferred")
        return ids

    def test_deferred(self) -> None:
        """Hold and release keep the time; the counts and words are Postfix's."""
        settings = {**routes({"dead.test": free_port()}), **SETTINGS}
        for start in (self.postfix, self.ours):
            side = start(settings)
            one, two, three = self.deferred(side, 3)
            due = side.wait_queue(one, "deferred")
            hold, held = "postsuper: Placed on hold: ", "placed on hold"
            free, freed = "postsuper: Released from hold: ", "released from hold"
            with self.subTest(side.name):
                self.assertEqual(
                    self.postsuper(side, "-h", one), [f"postsuper: {one}: {held}", f"{hold}1 message"]
                )
                self.assertEqual(side.wait_queue(one, "hold"), due)
                self.assertEqual(self.postsuper(side, "-h", one), [f"{hold}0 messages"])
                self.assertEqual(self.postsuper(side, "-h", two, "incoming"), [f"{hold}0 messages"])
                self.assertEqual(
                    self.postsuper(side, "-H", one), [f"postsuper: {one}: {freed}", f"{free}1 message"]
                )
                self.assertEqual(side.wait_queue(one, "deferred"), due)
                words = self.postsuper(
                    side, "-h", "-", "deferred", input=f"{three}\n{UNKNOWN}\n\n{two}\nALL\n"
                )
                # Ours looks at all ids before it begins.
                self.assertIn("postsuper: warning: invalid mail queue id: ", words)
                self.assertEqual(
                    [line for line in words if "invalid" not in line],
                    [f"postsuper: {three}: {held}", f"postsuper: {two}: {held}", f"{hold}2 messages"],
                )
                self.assertEqual(self.postsuper(side, "-h", "ALL"), [f"{hold}1 message"])
                self.assertEqual(self.postsuper(side, "-H", "ALL"), [f"{free}3 messages"])
                self.assertEqual(self.postsuper(side, "-d", UNKNOWN), ["postsuper: Deleted: 0 messages"])
                self.assertEqual(
                    self.postsuper(side, "-d", "../x"),
                    ["postsuper: warning: invalid mail queue id: ../x", "postsuper: Deleted: 0 messages"],
                )
                self.assertEqual(
                    self.postsuper(side, "-d", one),
                    [f"postsuper: {one}: removed", "postsuper: Deleted: 1 message"],
                )
                self.assertEqual(
                    self.postsuper(side, "-d", "ALL", "active"), ["postsuper: Deleted: 0 messages"]
                )
                self.assertEqual(self.postsuper(side, "-d", "ALL"), ["postsuper: Deleted: 2 messages"])
                self.assertEqual(side.files(), [])
                self.assertEqual(
                    run(side, ["postsuper", "-h", "ALL", "nosuch"]),
                    (1, "postsuper: fatal: invalid directory name: nosuch\n"),
                )

    def test_released_mail_waits(self) -> None:
        """Release starts nothing; the next flush takes what was released, and not what is held."""
        sink = self.sink()
        settings = {**routes({"dead.test": free_port(), "ok.test": sink}), **SETTINGS}
        for start in (self.postfix, self.ours):
            side = start(settings)
            held, released = self.deferred(side, 2)
            run(side, ["postsuper", "-h", held])
            run(side, ["postsuper", "-h", released])
            run(side, ["postsuper", "-H", released])
            before = len(side.statuses("dead.test"))
            # New mail comes through, and by then a release would have had its effect.
            side.wait_queue(side.send(b"user@ok.test"), None)
            quiet = len(side.statuses("dead.test")) - before
            side.postqueue("-f")
            side.wait_statuses(before + 1, "dead.test")
            side.wait_queue(released, "deferred")
            again = [status.queue_id for status in side.statuses("dead.test")[before:]]
            with self.subTest(side.name):
                self.assertEqual(quiet, 0)
                self.assertEqual(again, [released])
                found = side.find(held)
                assert found is not None
                self.assertEqual(found[0], "hold")

    def test_under_delivery(self) -> None:
        """
        What is held or deleted while it is delivered: the delivery goes on, and nothing is delivered twice;
        what waits is not begun.
        """
        for start in (self.postfix, self.ours):
            sink = self.sink(hold=Stage.END)
            side = start({**routes({"a.test": sink}), **SETTINGS})
            name = side.name
            first = side.send(*(b"first%03d@a.test" % number for number in range(150)))
            # Two deliveries of 50 are open, the third one waits.
            sink.wait_held(2)
            waiting = side.send(b"waiting@a.test")
            gone = side.send(b"gone@a.test")
            last = side.send(b"last@a.test")
            for queue_id in (waiting, gone, last):
                side.wait_queue(queue_id, "active")
            for queue_id in (first, waiting):
                run(side, ["postsuper", "-h", queue_id])
                side.wait_queue(queue_id, "hold")
            run(side, ["postsuper", "-d", gone])
            side.wait_queue(gone, None)
            sink.release_all()
            side.wait_queue(last, None)
            side.wait_idle()
            time.sleep(0.2)
            once = [len(delivery.recipients) for delivery in sink.taken()]
            for queue_id in (first, waiting):
                run(side, ["postsuper", "-H", queue_id])
                side.wait_queue(queue_id, "deferred")
            side.postqueue("-f")
            side.wait_empty()
            everybody = sorted(address for delivery in sink.taken() for address in delivery.recipients)
            with self.subTest(name):
                self.assertEqual(once, [50, 50, 1])
                self.assertEqual(
                    everybody,
                    sorted(
                        [*(b"first%03d@a.test" % n for n in range(150)), b"last@a.test", b"waiting@a.test"]
                    ),
                )

    def test_requeue(self) -> None:
        """A requeued message is tried at once, though its time has not come."""
        sink = self.sink(listen=False)
        settings = {**routes({"a.test": sink}), **SETTINGS}
        for start in (self.postfix, self.ours):
            side = start(settings)
            queue_id = side.send(b"user@a.test", subject=side.name)
            side.wait_queue(queue_id, "deferred")
            words = self.postsuper(side, "-r", queue_id)
            # Postfix's pickup looks once a minute, or when it is told.
            run(side, ["postkick", "public", "pickup", "W"])
            side.wait_statuses(2, "a.test")
            with self.subTest(side.name):
                self.assertEqual(
                    words, [f"postsuper: {queue_id}: requeued", "postsuper: Requeued: 1 message"]
                )
