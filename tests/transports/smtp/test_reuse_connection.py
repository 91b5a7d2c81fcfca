"""Connections are kept for the next message, and a dead one never costs a message."""

from __future__ import annotations

from qmqpd_tx.status import Action
from tests.transports.smtp.support import NO_PIPELINING, ON_WIRE, Peer, World

COMMANDS = b"MAIL FROM:<s@from.test> SIZE=21\r\nRCPT TO:<r0@to.test>\r\nDATA\r\n"
OK = b"250 2.0.0 Ok"


class Delivered(World):
    """With a message delivered over a fresh connection."""

    def first(self, **kwargs) -> Peer:
        """Deliver one message over a fresh connection."""
        delivery = self.deliver(**kwargs)
        peer = self.accept()
        peer.greet()
        self.finish(delivery, peer, 1)
        return peer

    def finish(self, delivery, peer: Peer, uses: int) -> None:
        self.assertTrue(peer.heard().endswith(COMMANDS))
        peer.say(OK, OK, b"354 go")
        self.assertEqual(peer.heard(), ON_WIRE)
        peer.say(OK)
        self.assertEqual(self.outcome(delivery).action, Action.SENT)
        self.assertEqual(self.report(delivery).connection_uses, uses)


class Reuse(Delivered):
    def test_the_next_message_starts_with_one_write(self) -> None:
        peer = self.first()
        for uses in (2, 3):
            self.reactor.advance(1)
            delivery = self.deliver()
            self.assertEqual(self.pending(), 0)
            self.finish(delivery, peer, uses)
            self.assertEqual(self.report(delivery).setup_seconds, 0.0)

    def test_another_nexthop_gets_its_own(self) -> None:
        self.first()
        self.deliver("[127.0.0.1]:2526")
        self.assertEqual(self.pending(), 1)

    def test_a_busy_connection_is_not_shared(self) -> None:
        self.first()
        self.deliver()
        self.deliver()
        self.assertEqual(self.pending(), 1)

    def test_closed_with_quit_after_the_time_limit(self) -> None:
        peer = self.first()
        self.reactor.advance(1.9)
        self.assertEqual(peer.heard(), b"")
        self.reactor.advance(0.2)
        self.assertEqual(peer.heard(), b"QUIT\r\n")
        self.assertTrue(peer.wire.closed)

    def test_each_waits_its_own_time(self) -> None:
        early = self.deliver()
        late = self.deliver()
        peers = [self.accept(), self.accept()]
        for peer in peers:
            peer.greet()
        self.finish(early, peers[0], 1)
        self.reactor.advance(1.5)
        self.finish(late, peers[1], 1)
        self.reactor.advance(1)
        self.assertEqual([peer.wire.closed for peer in peers], [True, False])
        self.reactor.advance(1)
        self.assertEqual([peer.wire.closed for peer in peers], [True, True])

    def test_age_limit(self) -> None:
        self.configure("smtp_connection_reuse_time_limit = 10\nsmtp_connection_cache_time_limit = 9\n")
        peer = self.first()
        self.reactor.advance(8)
        self.finish(self.deliver(), peer, 2)
        self.reactor.advance(3)
        self.finish(self.deliver(), peer, 3)
        self.assertEqual(peer.heard(), b"QUIT\r\n")

    def test_count_limit(self) -> None:
        self.configure("smtp_connection_reuse_count_limit = 1\n")
        peer = self.first()
        self.finish(self.deliver(), peer, 2)
        self.assertEqual(peer.heard(), b"QUIT\r\n")

    def test_switched_off_but_for_some(self) -> None:
        self.configure(
            "smtp_connection_cache_on_demand = no\nsmtp_connection_cache_destinations = 127.0.0.1\n"
        )
        self.assertFalse(self.first().wire.closed)
        self.configure("smtp_connection_cache_on_demand = no\n")
        self.assertTrue(self.first().wire.closed)

    def test_a_connection_closed_while_waiting_is_forgotten(self) -> None:
        self.first().close()
        delivery = self.deliver()
        peer = self.accept()
        peer.greet()
        self.finish(delivery, peer, 1)

    def test_a_server_that_speaks_out_of_turn_is_left(self) -> None:
        peer = self.first()
        peer.say(b"421 4.4.2 timeout")
        self.assertTrue(peer.wire.closed)
        peer.close()
        self.deliver()
        self.assertEqual(self.pending(), 1)

    def test_dead_before_mail_is_answered_is_tried_afresh(self) -> None:
        for last_words in ([], [b"421 4.4.2 timeout"]):
            peer = self.first()
            delivery = self.deliver()
            self.assertEqual(peer.heard(), COMMANDS)
            peer.say(*last_words)
            peer.close()
            self.assertNoResult(delivery)
            fresh = self.accept()
            fresh.greet()
            self.finish(delivery, fresh, 1)
            fresh.close()

    def test_all_dead_ones_are_passed_over(self) -> None:
        early, late = self.deliver(), self.deliver()
        peers = [self.accept(), self.accept()]
        for peer, delivery in zip(peers, (early, late), strict=True):
            peer.greet()
            self.finish(delivery, peer, 1)
        delivery = self.deliver()
        peers[1].close()
        self.assertEqual(peers[0].heard(), COMMANDS)
        peers[0].close()
        fresh = self.accept()
        fresh.greet()
        self.finish(delivery, fresh, 1)

    def test_dead_after_mail_was_answered_is_a_failure(self) -> None:
        peer = self.first()
        delivery = self.deliver()
        peer.say(OK)
        peer.close()
        outcome = self.outcome(delivery)
        self.assertEqual((outcome.action, outcome.dsn), (Action.DEFERRED, "4.4.2"))
        self.assertEqual(self.pending(), 0)

    def test_dead_after_the_content_is_never_sent_again(self) -> None:
        peer = self.first()
        delivery = self.deliver()
        peer.say(OK, OK, b"354 go")
        peer.close()
        self.assertIn("message may be sent more than once", self.outcome(delivery).text)
        self.assertEqual(self.pending(), 0)

    def test_after_a_broken_transaction_the_session_is_reset_first(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        peer.greet(NO_PIPELINING)
        peer.say(b"550 5.7.1 no")
        self.assertEqual(self.outcome(delivery).action, Action.BOUNCED)
        self.assertTrue(peer.heard().endswith(b"RSET\r\n"))
        self.deliver()
        self.assertEqual(self.pending(), 1, "it cannot be used before RSET is answered")
        peer.say(OK)
        self.deliver()
        self.assertEqual(peer.heard(), b"MAIL FROM:<s@from.test>\r\n")

    def test_a_reset_that_is_not_answered(self) -> None:
        for reply in (b"500 what", None):
            delivery = self.deliver()
            peer = self.accept()
            peer.greet(NO_PIPELINING)
            peer.say(b"550 5.7.1 no")
            self.assertEqual(self.outcome(delivery).action, Action.BOUNCED)
            if reply is not None:
                peer.say(reply)
            self.reactor.advance(21)
            self.assertTrue(peer.wire.closed)

    def test_none_taken_leaves_a_usable_session(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        peer.greet()
        peer.say(OK, b"550 5.1.1 no", b"354 go", OK)
        self.assertEqual(self.outcome(delivery).action, Action.BOUNCED)
        peer.heard()
        self.finish(self.deliver(), peer, 2)


class Stop(Delivered):
    def test_quit_and_wait(self) -> None:
        peer = self.first()
        stopped = self.transport.stop()
        self.assertEqual(peer.heard(), b"QUIT\r\n")
        self.assertNoResult(stopped)
        peer.close()
        self.successResultOf(stopped)

    def test_waits_for_the_answer_to_quit_when_told_so(self) -> None:
        self.configure("smtp_skip_quit_response = no\nsmtp_quit_timeout = 5\n")
        answering, silent = self.first(), None
        silent_delivery = self.deliver("[127.0.0.1]:2526")
        silent = self.accept()
        silent.greet()
        self.finish(silent_delivery, silent, 1)
        self.transport.stop()
        self.assertFalse(answering.wire.closed)
        answering.say(b"221 bye")
        self.assertTrue(answering.wire.closed)
        self.reactor.advance(6)
        self.assertTrue(silent.wire.aborted)

    def test_twice(self) -> None:
        peer = self.first()
        stopped = [self.transport.stop(), self.transport.stop()]
        peer.close()
        for each in stopped:
            self.successResultOf(each)

    def test_connections_are_not_kept_any_more(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        peer.greet()
        self.transport.stop()
        self.finish(delivery, peer, 1)
        self.assertEqual(peer.heard(), b"QUIT\r\n")
