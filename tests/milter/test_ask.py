"""
What filters are told, in which order, with which macros.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.message import ClientInfo, Envelope
from tests.interop.scripted_milter import Script, add_header, change_sender, insert_header, replace_body
from tests.milter.memory import CONTENT, Lab

WHOLE = [
    *("negotiate", "connect", "helo", "mail", "rcpt", "rcpt", "data"),
    *("header", "header", "header", "header", "eoh", "body", "eom", "quit"),
]


class EventTests(SynchronousTestCase):
    """Events and their arguments."""

    def test_all_events(self) -> None:
        """A filter is told of everything, as if the mail had come by SMTP; but not of our own header."""
        outcome = Lab([Script()]).send()
        self.assertEqual(outcome.events(), WHOLE)
        session = outcome.sessions[0]
        self.assertEqual(session.named("negotiate"), [(b"0x6", b"0x1ff", b"0x1fffff")])
        self.assertEqual(session.named("connect"), [(b"localhost", b"4", b"0", b"127.0.0.1", b"")])
        self.assertEqual(session.named("helo"), [(b"localhost", b"")])
        self.assertEqual(session.named("mail"), [(b"s@example.com", b"")])
        self.assertEqual(session.named("rcpt"), [(b"one@example.org", b""), (b"two@example.org", b"")])
        self.assertEqual(
            session.named("header"),
            [
                (b"Subject", b"hello", b""),
                (b"X-A", b"1", b""),
                (b"X-B", b"b", b""),
                (b"X-A", b"2", b""),
            ],
        )
        self.assertEqual(session.named("body"), [(b"body\r\nline 2\r\n",)])
        assert outcome.stored is not None
        self.assertTrue(outcome.content.endswith(CONTENT))
        self.assertFalse(outcome.held)

    def test_addresses_are_quoted(self) -> None:
        """Addresses come in external form, the null sender as nothing."""
        session = Lab([Script()]).send(sender=b"", recipients=[b"a b@example.org"]).sessions[0]
        self.assertEqual(session.named("mail"), [(b"", b"")])
        self.assertEqual(session.named("rcpt"), [(b'"a b"@example.org', b"")])

    def test_client(self) -> None:
        """All mail comes from localhost; with milter_show_client only that which was made here."""
        client = ClientInfo("2001:db8::1", "unknown", 1234)
        local = (b"localhost", b"4", b"0", b"127.0.0.1", b"")
        remote = (b"unknown", b"6", b"0", b"2001:db8::1", b"")
        for text, who, expected in (
            ("", client, local),
            ("milter_show_client = yes\n", client, remote),
            ("milter_show_client = yes\n", None, local),
        ):
            session = Lab([Script()], text).send(client=who).sessions[0]
            self.assertEqual(session.named("connect"), [expected])
            self.assertEqual(session.named("helo"), [(expected[0], b"")])

    def test_header_space(self) -> None:
        """One space after the colon is left out, unless the filter wants to see it."""
        content = b"A: 1\nB:1\nC:  1\nD:\t1\nE: 1\n\t2\nF:\n"
        session = Lab([Script()]).send(content).sessions[0]
        self.assertEqual(
            [value for _, value, _ in session.named("header")], [b"1", b"1", b" 1", b"\t1", b"1\n\t2", b""]
        )
        session = Lab([Script(protocol=0x100000)]).send(content).sessions[0]
        self.assertEqual(
            [value for _, value, _ in session.named("header")], [b" 1", b"1", b"  1", b"\t1", b" 1\n\t2", b""]
        )

    def test_no_body(self) -> None:
        """Without a body there is no body event."""
        for content in (b"Subject: x\n", b"Subject: x\n\n"):
            self.assertEqual(Lab([Script()]).send(content).events()[-4:], ["header", "eoh", "eom", "quit"])
        self.assertEqual(
            Lab([Script()]).send(b"\nhello\n").events()[-5:], ["data", "eoh", "body", "eom", "quit"]
        )

    def test_long_body(self) -> None:
        """A body comes in pieces of 65535 bytes, with CR LF."""
        body = b"0123456789abcde\n" * 13000
        session = Lab([Script()]).send(b"A: b\n\n" + body).sessions[0]
        pieces = [piece for (piece,) in session.named("body")]
        self.assertEqual([len(piece) for piece in pieces], [65535, 65535, 65535, 24395])
        self.assertEqual(b"".join(pieces), body.replace(b"\n", b"\r\n"))

    def test_left_out(self) -> None:
        """A filter hears only of what it wants to."""
        self.assertEqual(Lab([Script(protocol=0x37F)]).send().events(), ["negotiate", "eom", "quit"])
        events = Lab([Script(protocol=0x4 | 0x20)]).send().events()
        self.assertNotIn("mail", events)
        self.assertNotIn("header", events)

    def test_silent(self) -> None:
        """A filter that does not reply to events is not waited for."""
        self.assertEqual(Lab([Script(protocol=0xFF080)]).send().events(), WHOLE)

    def test_skip(self) -> None:
        """A filter that has seen enough of the body, or of the headers, gets no more of them."""
        script = Script(protocol=0x400, replies={"body:1": [b"s"], "header:2": [b"s"]})
        events = Lab([script]).send(b"A: b\nB: c\nC: d\n\n" + b"x" * 200000).events()
        self.assertEqual(events.count("body"), 1)
        self.assertEqual(events.count("header"), 2)
        self.assertEqual(events[-3:], ["body", "eom", "quit"])

    def test_versions(self) -> None:
        """Older versions of the protocol have fewer events; so have older filters."""
        for version, steps in (("2", b"0x7f"), ("3", b"0x17f"), ("4", b"0x37f"), ("6", b"0x1fffff")):
            outcome = Lab([Script()], f"milter_protocol = {version}\n").send()
            offered = outcome.sessions[0].named("negotiate")[0]
            self.assertEqual(offered, (b"0x" + version.encode(), b"0x1ff", steps))
            self.assertEqual("data" in outcome.events(), version in "46")
        self.assertNotIn("data", Lab([Script(version=2)]).send().events())

    def test_no_header_reply(self) -> None:
        """That a filter gives no replies to headers can be offered in older versions, too."""
        lab = Lab([Script(protocol=0x80)], "milter_protocol = 2, no_header_reply\n")
        self.assertEqual(lab.send().events().count("header"), 4)


class MacroTests(SynchronousTestCase):
    """Which macros come with what."""

    ALL = (
        "j v _ i {daemon_name} {client_addr} {client_name} {client_ptr} {client_port} {mail_addr} {rcpt_addr}"
    )

    def test_usual(self) -> None:
        """Those of Postfix's defaults."""
        session = Lab([Script()]).send().sessions[0]
        macros = {event: found for event, _, found in session.events}
        name = macros["mail"][b"i"]
        self.assertEqual(
            macros["connect"],
            {
                b"j": b"relay.test",
                b"{daemon_name}": b"relay.test",
                b"{daemon_addr}": b"127.0.0.1",
                b"v": macros["connect"][b"v"],
                b"_": b"localhost [127.0.0.1]",
            },
        )
        self.assertTrue(macros["connect"][b"v"].startswith(b"Postfix "))
        self.assertEqual(macros["helo"], {})
        self.assertEqual(macros["mail"], {b"i": name, b"{mail_addr}": b"s@example.com"})
        self.assertEqual(macros["rcpt"], {b"i": name, b"{rcpt_addr}": b"two@example.org"})
        for event in ("data", "header", "eoh", "body", "eom"):
            self.assertEqual(macros[event], {b"i": name})

    def test_configured(self) -> None:
        """The names come from parameters, and values that are missing from milter_macro_defaults."""
        parameters = {
            "milter_connect_macros": "connect",
            "milter_helo_macros": "helo",
            "milter_mail_macros": "mail",
            "milter_rcpt_macros": "rcpt",
            "milter_data_macros": "data",
            "milter_end_of_header_macros": "end_of_header",
            "milter_end_of_data_macros": "end_of_data",
        }
        text = "".join(
            f"{parameter} = {self.ALL} {{at_{stage}}} {{none}}\n" for parameter, stage in parameters.items()
        )
        defaults = ", ".join(f"at_{stage}={stage}" for stage in parameters.values())
        text += f"milter_macro_defaults = {defaults}, i=never, {{ other = a b }}\n"
        text += "milter_macro_daemon_name = someone\nmilter_macro_v = 7\n"
        session = Lab([Script()], text).send().sessions[0]
        macros = {event: found for event, _, found in session.events}
        everywhere = {
            b"j": b"relay.test",
            b"v": b"7",
            b"_": b"localhost [127.0.0.1]",
            b"i": macros["eom"][b"i"],
            b"{daemon_name}": b"someone",
            b"{client_addr}": b"127.0.0.1",
            b"{client_name}": b"localhost",
            b"{client_ptr}": b"localhost",
            b"{client_port}": b"0",
        }
        self.assertNotEqual(macros["eom"][b"i"], b"never")
        self.assertEqual(macros["connect"], {**everywhere, b"{at_connect}": b"connect"})
        self.assertEqual(macros["helo"], {**everywhere, b"{at_helo}": b"helo"})
        everywhere[b"{mail_addr}"] = b"s@example.com"
        self.assertEqual(macros["mail"], {**everywhere, b"{at_mail}": b"mail"})
        everywhere[b"{rcpt_addr}"] = b"two@example.org"
        for event, stage in (
            ("rcpt", b"rcpt"),
            ("data", b"data"),
            ("header", b"end_of_header"),
            ("eoh", b"end_of_header"),
            ("body", b"end_of_data"),
            ("eom", b"end_of_data"),
        ):
            self.assertEqual(macros[event], {**everywhere, b"{at_%b}" % stage: stage}, event)

    def test_chosen_by_the_filter(self) -> None:
        """A filter may choose other macros, stage by stage."""
        script = Script(symbols={0: b"i {rcpt_addr} v", 2: b"{client_name}", 5: b"j", 6: b"{daemon_name}"})
        session = Lab([script], "milter_macro_v = 7\n").send().sessions[0]
        macros = {event: found for event, _, found in session.events}
        name = macros["rcpt"][b"i"]
        self.assertEqual(macros["connect"], {b"i": name, b"v": b"7"})
        self.assertEqual(macros["mail"], {b"{client_name}": b"localhost"})
        self.assertEqual(macros["header"], {b"{daemon_name}": b"relay.test"})
        self.assertEqual(macros["body"], {b"j": b"relay.test"})
        self.assertEqual(macros["eom"], {b"j": b"relay.test"})


class RecipientTests(SynchronousTestCase):
    """What filters hear of recipients that were expanded."""

    def test_announced(self) -> None:
        """Filters hear of the address before it was expanded, and not of automatic copies."""
        lab = Lab([Script()])
        stage = lab.stage()
        stage.write(CONTENT)
        stage.envelope(Envelope(b"s@example.com", 1.0), b"Received: x\n")
        stage.announce(b"list@example.org")
        stage.recipient(b"m1@example.org", b"list@example.org")
        stage.recipient(b"m2@example.org", b"list@example.org")
        stage.announce(None)
        stage.recipient(b"archive@example.org", b"archive@example.org")
        outcome = lab.outcome(stage.commit())
        self.assertEqual(outcome.sessions[0].named("rcpt"), [(b"list@example.org", b"")])
        assert outcome.stored is not None
        self.assertEqual(
            outcome.stored.recipients,
            [
                (b"m1@example.org", b"list@example.org"),
                (b"m2@example.org", b"list@example.org"),
                (b"archive@example.org", b"archive@example.org"),
            ],
        )


class OrderTests(SynchronousTestCase):
    """Several filters."""

    def test_one_after_the_other(self) -> None:
        """Each event of the envelope goes to all; the content to one after the other, as changed so far."""
        changes = [
            add_header(b"X-New", b"v"),
            insert_header(0, b"X-0", b"v"),
            insert_header(2, b"X-1", b"v"),
            change_sender(b"<new@example.com>"),
            replace_body(b"other\r\n"),
            b"c",
        ]
        outcome = Lab([Script(replies={"eom": changes}), Script()]).send()
        second = outcome.sessions[1]
        self.assertEqual(second.named("mail"), [(b"s@example.com", b"")])
        self.assertEqual(
            [name for name, _, _ in second.named("header")],
            [b"X-0", b"X-1", b"Subject", b"X-A", b"X-B", b"X-A", b"X-New"],
        )
        self.assertEqual(second.named("body"), [(b"other\r\n",)])

    def test_accepted_early(self) -> None:
        """A filter that has accepted hears no more; the others do."""
        outcome = Lab([Script(replies={"mail": [b"a"]}), Script()]).send()
        self.assertEqual(outcome.events(0), ["negotiate", "connect", "helo", "mail", "quit"])
        self.assertEqual(outcome.events(1), WHOLE)
