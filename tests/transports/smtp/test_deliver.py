"""
One delivery against a server that misbehaves in every way at every stage: the outcome, the text and
what happens on the wire are what Postfix 3.7 does.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import TCPTimedOutError, TimeoutError, UserError

from qmqpd_tx.interfaces import SpoolError
from qmqpd_tx.status import Action, DestinationFailure
from tests.transports.smtp.support import EHLO, MAIL, NO_PIPELINING, ON_WIRE, Content, Peer, World

HOST = "127.0.0.1[127.0.0.1]"
RELAY = HOST + ":2525"
SENT, DEFERRED, BOUNCED = Action.SENT, Action.DEFERRED, Action.BOUNCED
COMMANDS = b"MAIL FROM:<s@from.test> SIZE=21\r\nRCPT TO:<r0@to.test>\r\nDATA\r\n"
OK = b"250 2.0.0 Ok"


class Success(World):
    def test_pipelined_in_two_writes(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        self.assertEqual((peer.host, peer.port), ("127.0.0.1", 2525))
        self.assertTrue(peer.wire.no_delay)
        peer.greet()
        self.assertEqual(peer.heard(), COMMANDS)
        writes = len(peer.wire.writes)
        peer.say(OK, OK, b"354 go")
        self.assertEqual(peer.heard(), ON_WIRE)
        self.assertEqual(len(peer.wire.writes), writes + 1, "body and dot go in one write")
        self.assertNoResult(delivery)
        peer.say(b"250 2.0.0 Ok: queued as 1")
        outcome = self.outcome(delivery)
        self.check(outcome, SENT, "2.0.0", "250 2.0.0 Ok: queued as 1", RELAY)
        self.assertEqual(outcome.remote_mta, "127.0.0.1")
        report = self.report(delivery)
        self.assertEqual((report.destination_failure, report.connection_uses), (None, 1))

    def test_lockstep_without_pipelining(self) -> None:
        delivery = self.deliver(recipients=[b"a@to.test", b"b@to.test"])
        peer = self.accept()
        peer.greet(NO_PIPELINING)
        for command in (
            b"MAIL FROM:<s@from.test>\r\n",
            b"RCPT TO:<a@to.test>\r\n",
            b"RCPT TO:<b@to.test>\r\n",
        ):
            self.assertEqual(peer.heard(), command)
            peer.say(b"250 ok")
        self.assertEqual(peer.heard(), b"DATA\r\n")
        peer.say(b"354 go")
        self.assertEqual(peer.heard(), ON_WIRE)
        peer.say(b"250")
        outcomes = self.report(delivery).outcomes
        self.assertEqual([(o.action, o.dsn, o.text) for o in outcomes], [(SENT, "2.0.0", "250")] * 2)

    def test_helo_when_ehlo_is_not_known(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        peer.greet(b"500 5.5.1 what")
        self.assertEqual(peer.heard(), b"HELO relay.test\r\n")
        peer.say(b"250 srv")
        self.assertEqual(peer.heard(), b"MAIL FROM:<s@from.test>\r\n")
        peer.close()
        self.report(delivery)

    def test_replies_in_any_chunking(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        for byte in b"220-a\r\n220 b ESMTP\r\n" + EHLO + b"\r\n250 ok\r\n250 ok\r\n354 go\r\n" + OK + b"\r\n":
            peer.protocol.dataReceived(bytes((byte,)))
        self.assertEqual(self.outcome(delivery).action, SENT)

    def test_eight_bit_is_declared_when_offered(self) -> None:
        self.deliver(content=Content(b"\xe9\n"), eight_bit=True)
        peer = self.accept()
        peer.greet()
        self.assertIn(b" SIZE=3 BODY=8BITMIME\r\n", peer.heard())

    def test_eight_bit_is_converted_when_not_offered(self) -> None:
        data = b"Content-Transfer-Encoding: 8bit\n\n\xe9\n"
        self.deliver(content=Content(data), eight_bit=True)
        peer = self.accept()
        peer.greet(b"250-srv\r\n250 PIPELINING")
        self.assertTrue(peer.heard().startswith(b"MAIL FROM:<s@from.test>\r\n"))
        peer.say(OK, OK, b"354 go")
        self.assertEqual(peer.heard(), b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=E9\r\n.\r\n")

    def test_conversion_can_be_disabled(self) -> None:
        self.configure("disable_mime_output_conversion = yes\n")
        self.deliver(content=Content(b"Content-Transfer-Encoding: 8bit\n\n\xe9\n"), eight_bit=True)
        peer = self.accept()
        peer.greet(b"250-srv\r\n250 PIPELINING")
        peer.say(OK, OK, b"354 go")
        self.assertIn(b"8bit\r\n\r\n\xe9\r\n", peer.heard())

    def test_original_recipient_for_servers_with_dsn(self) -> None:
        self.deliver(recipients=[b"a+b@to.test"])
        peer = self.accept()
        peer.greet(b"250-srv\r\n250 DSN")
        peer.heard()
        peer.say(OK)
        self.assertEqual(peer.heard(), b"RCPT TO:<a+b@to.test> ORCPT=rfc822;a+2Bb@to.test\r\n")

    def test_discarded_keywords_are_overlooked(self) -> None:
        self.configure("smtp_discard_ehlo_keywords = pipelining, size\n")
        self.deliver()
        peer = self.accept()
        peer.greet()
        self.assertEqual(peer.heard(), b"MAIL FROM:<s@from.test>\r\n")

    def test_helo_only_when_told_so(self) -> None:
        self.configure("smtp_never_send_ehlo = yes\nsmtp_helo_name = other.test\n")
        self.deliver()
        peer = self.accept()
        peer.say(b"220 x ESMTP")
        self.assertEqual(peer.heard(), b"HELO other.test\r\n")

    def test_ehlo_only_for_esmtp_greetings_when_told_so(self) -> None:
        self.configure("smtp_always_send_ehlo = no\n")
        self.deliver()
        self.deliver()
        plain, esmtp = self.accept(), self.accept()
        plain.say(b"220 x SMTP")
        esmtp.say(b"220 x ESMTP")
        self.assertEqual((plain.heard(), esmtp.heard()), (b"HELO relay.test\r\n", b"EHLO relay.test\r\n"))


class Unreachable(World):
    """The destination cannot be connected to or greeted: these count against it."""

    def failed(self, delivery, dsn: str, text: str, relay: str, action: Action = DEFERRED) -> None:
        self.check(self.outcome(delivery), action, dsn, text, relay)
        expected = DestinationFailure(dsn, text) if action is DEFERRED else None
        self.assertEqual(self.report(delivery).destination_failure, expected)

    def test_connection_refused(self) -> None:
        delivery = self.deliver()
        self.refuse()
        self.failed(delivery, "4.4.1", f"connect to {RELAY}: Connection refused", "none")

    def test_connection_timed_out(self) -> None:
        for reason in (TimeoutError(), TCPTimedOutError(osError=OSError(110, "x"))):
            delivery = self.deliver()
            self.assertEqual(self.reactor.tcpClients[-1][3], 30, "smtp_connect_timeout")
            self.refuse(reason)
            self.failed(delivery, "4.4.1", f"connect to {RELAY}: Connection timed out", "none")

    def test_greeting(self) -> None:
        for greeting, dsn in [
            (b"421 4.3.2 go away", "4.3.2"),
            (b"450 later", "4.0.0"),
            (b"554 5.7.1 no way", "4.7.1"),
            (b"554 no", "4.0.0"),
        ]:
            delivery = self.deliver()
            peer = self.accept()
            peer.say(greeting)
            text = f"host {HOST} refused to talk to me: {greeting.decode()}"
            self.failed(delivery, dsn, text, RELAY)
            self.assertEqual(peer.heard(), b"QUIT\r\n")
            self.assertTrue(peer.wire.closed)

    def test_5xx_greeting_bounces_when_told_so(self) -> None:
        self.configure("smtp_skip_5xx_greeting = no\n")
        delivery = self.deliver()
        self.accept().say(b"554 5.7.1 no way")
        self.failed(delivery, "5.7.1", f"host {HOST} refused to talk to me: 554 5.7.1 no way", RELAY, BOUNCED)

    def test_greeting_of_another_class_bounces(self) -> None:
        delivery = self.deliver()
        self.accept().say(b"350 weird")
        self.failed(delivery, "5.5.0", f"host {HOST} refused to talk to me: 350 weird", RELAY, BOUNCED)

    def test_ehlo_and_helo(self) -> None:
        for ehlo, helo, action, dsn in [
            (b"502 no", b"502 no helo", BOUNCED, "5.0.0"),
            (b"450 4.3.2 later", b"450 4.7.1 later helo", DEFERRED, "4.7.1"),
            (b"550 5.7.1 a", b"421 x", DEFERRED, "4.0.0"),
        ]:
            delivery = self.deliver()
            peer = self.accept()
            peer.greet(ehlo)
            self.assertEqual(peer.heard(), b"HELO relay.test\r\n")
            peer.say(helo)
            self.failed(delivery, dsn, f"host {HOST} refused to talk to me: {helo.decode()}", RELAY, action)

    def test_421_to_ehlo_ends_the_session(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        peer.greet(b"421 4.3.2 bye")
        self.failed(delivery, "4.3.2", f"host {HOST} refused to talk to me: 421 4.3.2 bye", RELAY)

    def test_lost_or_silent_during_the_handshake(self) -> None:
        for said, doing in [
            ([], "receiving the initial server greeting"),
            ([b"220 x"], "performing the EHLO handshake"),
            ([b"220 x", b"500 x"], "performing the HELO handshake"),
        ]:
            delivery = self.deliver()
            peer = self.accept()
            peer.say(*said)
            peer.close()
            self.failed(delivery, "4.4.2", f"lost connection with {HOST} while {doing}", RELAY)
            delivery = self.deliver()
            peer = self.accept()
            peer.say(*said)
            self.reactor.advance(299.5)
            self.assertNoResult(delivery)
            self.reactor.advance(1)
            self.failed(delivery, "4.4.2", f"conversation with {HOST} timed out while {doing}", RELAY)
            self.assertTrue(peer.wire.aborted)

    def test_lines_that_are_no_smtp_do_not_answer(self) -> None:
        delivery = self.deliver()
        self.accept().say(b"garbage here")
        self.assertNoResult(delivery)
        self.reactor.advance(301)
        self.failed(
            delivery,
            "4.4.2",
            f"conversation with {HOST} timed out while receiving the initial server greeting",
            RELAY,
        )


class Stages(World):
    """What a server can do once it has greeted us."""

    STAGES = (
        ("MAIL FROM", [], "sending MAIL FROM", 300),
        ("RCPT TO", [OK], "sending RCPT TO", 300),
        ("DATA", [OK, OK], "sending DATA command", 120),
        (
            "end of DATA",
            [OK, OK, b"354 go"],
            "sending end of data -- message may be sent more than once",
            600,
        ),
    )

    def reach(self, said: list[bytes], ehlo: bytes = EHLO) -> tuple[object, Peer]:
        delivery = self.deliver()
        peer = self.accept()
        peer.greet(ehlo)
        for line in said:
            peer.say(line)
        return delivery, peer

    def replied(self, reply: bytes, ehlo: bytes, action: Action, dsn: str) -> None:
        for command, said, _, _ in self.STAGES:
            delivery, peer = self.reach(said, ehlo)
            peer.say(reply)
            if command == "RCPT TO" and ehlo == EHLO:
                self.assertNoResult(delivery)
                peer.say(b"554 5.5.1 no valid recipients")
            elif command == "MAIL FROM" and ehlo == EHLO:
                peer.say(b"503 x", b"503 x")
            text = f"host {HOST} said: {reply.decode()} (in reply to {command} command)"
            self.check(self.outcome(delivery), action, dsn, text, RELAY)
            self.assertIsNone(self.report(delivery).destination_failure)
            self.assertEqual(self.outcome(delivery).diagnostic, reply.decode())
            peer.close()

    def test_4xx(self) -> None:
        for ehlo in (EHLO, NO_PIPELINING):
            self.replied(b"451 4.7.1 later", ehlo, DEFERRED, "4.7.1")
            self.replied(b"452 full", ehlo, DEFERRED, "4.0.0")

    def test_5xx(self) -> None:
        for ehlo in (EHLO, NO_PIPELINING):
            self.replied(b"550 5.1.1 no", ehlo, BOUNCED, "5.1.1")
            self.replied(b"554 no", ehlo, BOUNCED, "5.0.0")

    def test_endless_reply(self) -> None:
        """A reply that never becomes complete gets no more time than silence, at every stage."""
        for line in (b"250-more\r\n", b"no SMTP\r\n", b"x"):
            for _, said, doing, limit in self.STAGES:
                delivery, peer = self.reach(said)
                for _ in range(limit):
                    self.assertNoResult(delivery)
                    peer.protocol.dataReceived(line)
                    self.reactor.advance(1)
                text = f"conversation with {HOST} timed out while {doing}"
                self.check(self.outcome(delivery), DEFERRED, "4.4.2", text, RELAY)
                self.assertTrue(peer.wire.aborted)

    def test_421_and_close(self) -> None:
        for command, said, _, _ in self.STAGES:
            delivery, peer = self.reach(said)
            peer.say(b"421 4.3.2 bye")
            peer.close()
            text = f"host {HOST} said: 421 4.3.2 bye (in reply to {command} command)"
            self.check(self.outcome(delivery), DEFERRED, "4.3.2", text, RELAY)
            self.assertEqual(self.pending(), 0)

    def test_421_without_close_ends_the_session_after_the_transaction(self) -> None:
        delivery, peer = self.reach([OK, OK, b"354 go"])
        peer.heard()
        peer.say(b"421 4.3.2 bye")
        self.assertEqual(self.outcome(delivery).dsn, "4.3.2")
        self.assertEqual(peer.heard(), b"QUIT\r\n")

    def test_lost(self) -> None:
        for _, said, doing, _ in self.STAGES:
            delivery, peer = self.reach(said)
            peer.close()
            text = f"lost connection with {HOST} while {doing}"
            self.check(self.outcome(delivery), DEFERRED, "4.4.2", text, RELAY)
            self.assertIsNone(self.report(delivery).destination_failure)

    def test_silent(self) -> None:
        for _, said, doing, limit in self.STAGES:
            delivery, peer = self.reach(said)
            self.reactor.advance(limit - 0.5)
            self.assertNoResult(delivery)
            self.reactor.advance(1)
            text = f"conversation with {HOST} timed out while {doing}"
            self.check(self.outcome(delivery), DEFERRED, "4.4.2", text, RELAY)
            self.assertTrue(peer.wire.aborted)

    def test_the_limit_is_for_each_reply(self) -> None:
        delivery, peer = self.reach([])
        for limit in (299, 299, 119):
            self.reactor.advance(limit)
            self.assertNoResult(delivery)
            peer.say(b"250-one more line", b"354 go" if limit == 119 else OK)
        self.reactor.advance(599)
        self.assertNoResult(delivery)

    def test_another_answer_to_data_is_a_protocol_error(self) -> None:
        delivery, peer = self.reach([OK, OK])
        peer.heard()
        peer.say(b"250 odd")
        text = f"Protocol error: host {HOST} said: 250 odd (in reply to DATA command)"
        self.check(self.outcome(delivery), BOUNCED, "5.5.0", text, RELAY)
        self.assertEqual(peer.heard(), b"RSET\r\n")

    def test_a_reply_of_another_class_bounces(self) -> None:
        delivery, peer = self.reach([OK, OK, b"354 go"])
        peer.say(b"354 odd")
        text = f"host {HOST} said: 354 odd (in reply to end of DATA command)"
        self.check(self.outcome(delivery), BOUNCED, "5.5.0", text, RELAY)

    def test_after_garbage_a_reply_of_another_class_defers(self) -> None:
        delivery, peer = self.reach([])
        peer.say(b"what is this", OK, OK, b"354 go", b"354 odd")
        outcome = self.outcome(delivery)
        self.assertEqual((outcome.action, outcome.dsn), (DEFERRED, "4.5.0"))
        self.assertTrue(peer.wire.closed, "a session out of step is not used again")


class Recipients(World):
    """Each recipient has its own reply."""

    def results(self, replies: list[bytes], ehlo: bytes = EHLO) -> list[tuple[Action, str]]:
        addresses = [b"r%d@to.test" % number for number in range(len(replies))]
        delivery = self.deliver(recipients=addresses)
        self.peer = self.accept()
        self.peer.greet(ehlo)
        self.peer.heard()
        self.peer.say(OK)
        for reply in replies:
            self.peer.say(reply)
        if any(reply.startswith(b"2") for reply in replies) or ehlo == EHLO:
            self.peer.say(b"354 go")
        self.last = self.peer.heard()
        if self.last.endswith(b".\r\n"):
            self.peer.say(b"250 2.0.0 Ok: queued")
        outcomes = self.report(delivery).outcomes
        self.assertEqual([o.recipient.address for o in outcomes], addresses)
        return [(o.action, o.dsn) for o in outcomes]

    def test_mixed(self) -> None:
        for ehlo in (EHLO, NO_PIPELINING):
            replies = [b"450 4.2.1 later", b"250 2.1.5 Ok", b"550 5.1.1 no", b"251 will forward"]
            self.assertEqual(
                self.results(replies, ehlo),
                [(DEFERRED, "4.2.1"), (SENT, "2.0.0"), (BOUNCED, "5.1.1"), (SENT, "2.0.0")],
            )
            self.assertTrue(self.last.endswith(ON_WIRE))
            self.peer.close()

    def test_too_many_recipients_leaves_the_rest_for_later(self) -> None:
        replies = [b"250 2.1.5 Ok", b"452 4.5.3 too many", b"452 4.5.3 too many"]
        self.assertEqual(self.results(replies), [(SENT, "2.0.0"), (DEFERRED, "4.5.3"), (DEFERRED, "4.5.3")])

    def test_none_taken_but_pipelined_data_is_answered_with_354(self) -> None:
        self.assertEqual(self.results([b"550 5.1.1 no", b"450 x"]), [(BOUNCED, "5.1.1"), (DEFERRED, "4.0.0")])
        self.assertEqual(self.last, b".\r\n", "nobody gets the content")

    def test_mail_refused_but_the_rest_taken(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        peer.greet()
        peer.heard()
        peer.say(b"550 5.7.1 no", OK, b"354 go")
        self.assertEqual(peer.heard(), b".\r\n")
        peer.say(b"250 2.0.0 queued nothing")
        text = f"host {HOST} said: 550 5.7.1 no (in reply to MAIL FROM command)"
        self.check(self.outcome(delivery), BOUNCED, "5.7.1", text, RELAY)

    def test_none_taken_in_lockstep_sends_no_data(self) -> None:
        self.assertEqual(self.results([b"550 5.1.1 no"], NO_PIPELINING), [(BOUNCED, "5.1.1")])
        self.assertEqual(self.last, b"RCPT TO:<r0@to.test>\r\nRSET\r\n")

    def test_connection_lost_in_mid_list(self) -> None:
        delivery = self.deliver(recipients=[b"a@to.test", b"b@to.test", b"c@to.test"])
        peer = self.accept()
        peer.greet()
        peer.say(OK, OK, b"550 5.1.1 no")
        peer.close()
        lost = (DEFERRED, "4.4.2")
        outcomes = self.report(delivery).outcomes
        self.assertEqual([(o.action, o.dsn) for o in outcomes], [lost, (BOUNCED, "5.1.1"), lost])


class Size(World):
    def test_a_message_over_the_announced_limit_bounces_before_mail(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        peer.greet(b"250-x\r\n250-SIZE 20\r\n250 PIPELINING")
        text = f"message size 21 exceeds size limit 20 of server {HOST}"
        self.check(self.outcome(delivery), BOUNCED, "5.3.4", text, RELAY)
        self.assertNotIn(b"MAIL", peer.heard())

    def test_no_limit(self) -> None:
        # The last is as long as a line may be; numbers of that length are more than Python reads.
        self.configure("line_length_limit = 6000\n")
        for size in (b"SIZE", b"SIZE 0", b"SIZE x", b"SIZE " + b"9" * 5000):
            self.deliver()
            peer = self.accept()
            peer.greet(b"250-x\r\n250-" + size + b"\r\n250 PIPELINING")
            self.assertTrue(peer.heard().startswith(b"MAIL FROM:<s@from.test> SIZE=21\r\n"))


class Large(World):
    """Content that does not fit is sent as the network takes it."""

    DATA = b"Subject: big\n\n" + (b"0123456789" * 7 + b"\n") * 4000

    def begin(self, data: bytes = DATA):
        delivery = self.deliver(content=Content(data))
        peer = self.accept()
        peer.greet()
        peer.heard()
        peer.say(OK, OK, b"354 go")
        return delivery, peer

    def test_a_piece_for_each_time_the_network_is_ready(self) -> None:
        delivery, peer = self.begin()
        sent = []
        while peer.wire.producer is not None:
            self.assertFalse(peer.wire.streaming)
            peer.wire.producer.resumeProducing()
            sent.append(peer.heard())
            self.assertLess(len(sent[-1]), 128 * 1024)
        self.assertGreater(len(sent), 2)
        self.assertEqual(b"".join(sent), self.DATA.replace(b"\n", b"\r\n") + b".\r\n")
        self.assertTrue(sent[-1].endswith(b"9\r\n.\r\n"))
        peer.say(OK)
        self.assertEqual(self.outcome(delivery).action, SENT)

    def test_lost_in_the_middle(self) -> None:
        delivery, peer = self.begin()
        peer.wire.producer.resumeProducing()
        peer.close()
        text = f"lost connection with {HOST} while sending message body"
        self.check(self.outcome(delivery), DEFERRED, "4.4.2", text, RELAY)

    def test_stalled_in_the_middle(self) -> None:
        delivery, peer = self.begin()
        for _ in range(2):
            peer.wire.producer.resumeProducing()
            self.reactor.advance(179)
            self.assertNoResult(delivery)
        self.reactor.advance(2)
        text = f"conversation with {HOST} timed out while sending message body"
        self.check(self.outcome(delivery), DEFERRED, "4.4.2", text, RELAY)

    def test_an_early_answer_counts(self) -> None:
        for close in (True, False):
            delivery, peer = self.begin()
            peer.wire.producer.resumeProducing()
            peer.say(b"552 5.3.4 too big")
            if close:
                peer.close()
            while not close and peer.wire.producer is not None:
                peer.wire.producer.resumeProducing()
            text = f"host {HOST} said: 552 5.3.4 too big (in reply to end of DATA command)"
            self.check(self.outcome(delivery), BOUNCED, "5.3.4", text, RELAY)

    def test_flood_instead_of_reading(self) -> None:
        """A server that answers without end and takes nothing costs neither memory nor time without end."""
        delivery, peer = self.begin()
        peer.wire.producer.resumeProducing()
        for _ in range(179):
            peer.say(*[b"250 really"] * 100)
            self.reactor.advance(1)
            self.assertNoResult(delivery)
        self.assertLess(len(peer.protocol.conversation._unread), 3)
        self.reactor.advance(2)
        self.assertTrue(peer.wire.aborted)
        self.assertEqual(self.outcome(delivery).action, DEFERRED)

    def test_a_queue_file_that_cannot_be_read_never_ends_with_a_dot(self) -> None:
        class Broken(Content):
            async def read(self, offset: int, length: int) -> bytes:
                if offset:
                    raise SpoolError("Q1: read error")
                return await super().read(offset, length)

        delivery = self.deliver(content=Broken(self.DATA))
        peer = self.accept()
        peer.greet()
        peer.heard()
        peer.say(OK, OK, b"354 go")
        peer.wire.producer.resumeProducing()
        peer.wire.producer.resumeProducing()
        self.assertFalse(peer.heard().endswith(b".\r\n"))
        self.assertTrue(peer.wire.aborted)
        self.assertEqual((self.outcome(delivery).action, self.outcome(delivery).dsn), (DEFERRED, "4.3.0"))


class Addresses(World):
    def commands(self, **kwargs) -> bytes:
        self.deliver(**kwargs)
        peer = self.accept()
        peer.greet(b"250-srv\r\n250 PIPELINING")
        return peer.heard()

    def test_quoted_where_rfc_5321_wants_it(self) -> None:
        for address, path in [
            (b"a b@to.test", b'"a b"@to.test'),
            (b'a"b@to.test', b'"a\\"b"@to.test'),
            (b".a@to.test", b'".a"@to.test'),
            (b"a.@to.test", b'"a."@to.test'),
            (b"a..b@to.test", b'"a..b"@to.test'),
            (b"a\\b@to.test", b'"a\\\\b"@to.test'),
            (b"<x>@to.test", b'"<x>"@to.test'),
            (b"a@b@to.test", b'"a@b"@to.test'),
            (b"a\x01b@to.test", b'"a\x01b"@to.test'),
            (b"a,b@to.test", b'"a,b"@to.test'),
            (b"-x@to.test", b"-x@to.test"),
            (b"a\xc3\xa9@to.test", b"a\xc3\xa9@to.test"),
            (b"postmaster", b"postmaster"),
        ]:
            self.assertIn(b"RCPT TO:<" + path + b">\r\n", self.commands(recipients=[address]))

    def test_not_quoted_when_told_so(self) -> None:
        self.configure("smtp_quote_rfc821_envelope = no\n")
        self.assertIn(b"RCPT TO:<a b@to.test>\r\n", self.commands(recipients=[b"a b@to.test"]))

    def test_null_sender(self) -> None:
        self.assertTrue(self.commands(sender=b"").startswith(b"MAIL FROM:<>\r\n"))

    def test_what_could_become_a_command_never_reaches_the_wire(self) -> None:
        evil = [
            b"a@to.test>\r\nRCPT TO:<b@to.test",
            b"a\n@to.test",
            b"a\0@to.test",
            b"a@to.test> X",
            b"a@b>c",
            b"a@b\x01",
            b'a@b"c',
            b"a@b\\",
        ]
        delivery = self.deliver(recipients=[*evil, b"good@to.test"])
        peer = self.accept()
        peer.greet(b"250-srv\r\n250 PIPELINING")
        self.assertEqual(peer.heard(), b"MAIL FROM:<s@from.test>\r\nRCPT TO:<good@to.test>\r\nDATA\r\n")
        peer.say(OK, OK, b"354 go", OK)
        results = {o.recipient.address: (o.action, o.dsn) for o in self.report(delivery).outcomes}
        self.assertEqual(
            results, {**dict.fromkeys(evil, (BOUNCED, "5.1.3")), b"good@to.test": (SENT, "2.0.0")}
        )

    def test_other_bad_domains_are_for_the_server_to_judge(self) -> None:
        for address in (b"a@b c", b"a@b;c", b"a@b(c)", b"a@b:c", b"a@", b"a@b..c"):
            self.assertTrue(self.commands(sender=address).startswith(b"MAIL FROM:<" + address + b">\r\n"))

    def test_bad_sender_bounces_without_a_connection(self) -> None:
        outcome = self.outcome(self.deliver(sender=b"a\r\n@b"))
        self.assertEqual((outcome.action, outcome.dsn), (BOUNCED, "5.1.7"))
        self.assertEqual(self.pending(), 0)


class Cancelling(World):
    def test_while_connecting(self) -> None:
        delivery = self.deliver()
        delivery.cancel()
        self.refuse(UserError())
        self.assertEqual((self.outcome(delivery).action, self.outcome(delivery).dsn), (DEFERRED, "4.3.2"))

    def test_during_the_handshake(self) -> None:
        delivery = self.deliver()
        peer = self.accept()
        delivery.cancel()
        self.assertEqual((self.outcome(delivery).action, self.outcome(delivery).dsn), (DEFERRED, "4.3.2"))
        self.assertTrue(peer.wire.aborted)

    def test_recipients_that_are_settled_keep_their_outcome(self) -> None:
        delivery = self.deliver(recipients=[b"a@to.test", b"b@to.test"])
        peer = self.accept()
        peer.greet()
        peer.say(OK, b"550 5.1.1 no")
        delivery.cancel()
        outcomes = self.report(delivery).outcomes
        self.assertEqual([(o.action, o.dsn) for o in outcomes], [(BOUNCED, "5.1.1"), (DEFERRED, "4.3.2")])
        self.assertTrue(peer.wire.aborted)
        self.assertEqual(self.pending(), 0)

    def test_while_looking_up(self) -> None:
        self.zone.records["slow.test"] = Deferred()
        delivery = self.deliver("slow.test")
        delivery.cancel()
        self.assertEqual((self.outcome(delivery).action, self.outcome(delivery).dsn), (DEFERRED, "4.3.2"))

    def test_content_is_not_touched(self) -> None:
        content = Content(MAIL)
        self.deliver(content=content).cancel()
        self.assertEqual(content.data, MAIL)
