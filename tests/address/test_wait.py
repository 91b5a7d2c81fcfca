"""
The router with tables that have to ask somebody, that answer otherwise each time, or cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmqpd_tx.address import Router
from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import IConfig, TableError
from qmqpd_tx.message import Route
from qmqpd_tx.tables import ILookupTable, open_table, supported_types

BASE = "compatibility_level = 3.6\nmyhostname = relay.test\ninet_interfaces = 127.0.0.1\n"


def own(config: IConfig) -> set[object]:
    """
    @return: fixed addresses.
    """
    return {ip_address("127.0.0.1")}


@implementer(ILookupTable)
class Server:
    """
    A table behind a server.

    @ivar entries: what it has.
    @ivar asked: the keys, in order.
    @ivar waiting: the answers that it has not given yet.
    @ivar away: whether it fails.
    @ivar at_once: whether it answers at once.
    """

    name = "server:x"
    fixed_keys = True
    immediate = False
    stable = False
    sources = ()

    def __init__(self, entries: Mapping[bytes, bytes]) -> None:
        self.entries = dict(entries)
        self.asked: list[bytes] = []
        self.waiting: list[tuple[bytes, Deferred[bytes | None]]] = []
        self.away = False
        self.at_once = False

    def lookup(self, key: bytes) -> Any:
        """See L{ILookupTable.lookup}."""
        self.asked.append(key)
        if self.at_once:
            return self._answer(key)
        deferred: Deferred[bytes | None] = Deferred()
        self.waiting.append((key, deferred))
        return deferred

    def _answer(self, key: bytes) -> bytes | None:
        if self.away:
            raise TableError("server:x: gone")
        return self.entries.get(key.lower())

    def serve(self) -> None:
        """Answer all."""
        while self.waiting:
            key, deferred = self.waiting.pop(0)
            try:
                answer = self._answer(key)
            except TableError as error:
                deferred.errback(error)
            else:
                deferred.callback(answer)

    def close(self) -> None:
        """See L{ILookupTable.close}."""


class WaitTests(SynchronousTestCase):
    """One server, and tables in memory."""

    def setUp(self) -> None:
        """Watch the log."""
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def start(self, settings: str, entries: Mapping[bytes, bytes] | None = None) -> Router:
        """
        @return: a router for main.cf lines; C{server:x} in them is L{Server}.
        """
        self.server = Server(entries or {})
        return Router(config_from_text(BASE + settings), own, 100, self.open)  # type: ignore[arg-type]

    def open(self, text: str, parameter: str) -> Any:
        """
        Open a table.
        """
        return self.server if text == "server:x" else open_table(text, parameter, ())

    def route(self, subject: Router, recipient: bytes, sender: bytes = b"") -> Route:
        """
        @return: the route, which had to be waited for.
        """
        answer = subject.resolve(sender, recipient)
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        self.server.serve()
        route: Route = self.successResultOf(answer)
        return route

    def warnings(self) -> list[str]:
        """
        @return: the log, without duplicates.
        """
        return list(dict.fromkeys(str(formatEvent(event)) for event in self.events))

    # --- where to ask ---------------------------------------------------------------------------------

    def test_transport_maps(self) -> None:
        """All keys in order, each time anew: a server may learn."""
        subject = self.start(
            "transport_maps = server:x\nrecipient_delimiter = +\n", {b"b.test": b"slow:hop", b"*": b":star"}
        )
        self.assertEqual(self.route(subject, b"u+e@a.b.test"), Route("smtp", "star", b"u+e@a.b.test"))
        self.assertEqual(
            sorted(self.server.asked),
            sorted([b"u+e@a.b.test", b"u@a.b.test", b"a.b.test", b".b.test", b".test", b"*"]),
        )
        self.assertEqual(self.route(subject, b"u@b.test"), Route("slow", "hop", b"u@b.test"))
        self.server.entries[b"b.test"] = b"fast:"
        self.assertEqual(self.route(subject, b"u@b.test"), Route("fast", "b.test", b"u@b.test"))
        self.server.entries[b"u@b.test"] = b"own:x"
        self.assertEqual(self.route(subject, b"u@b.test"), Route("own", "x", b"u@b.test"))

    def test_at_once(self) -> None:
        """A server that has its answer at hand makes nobody wait."""
        subject = self.start("transport_maps = server:x\n", {b"b.test": b"slow:hop"})
        self.server.at_once = True
        self.assertEqual(subject.resolve(b"", b"u@b.test"), Route("slow", "hop", b"u@b.test"))

    def test_relocated_maps(self) -> None:
        """Who has moved is told so."""
        subject = self.start("relocated_maps = server:x\n", {b"u@a.test": b"v@b.test"})
        self.assertEqual(
            self.route(subject, b"u@a.test"), Route("error", "5.1.6 User has moved to v@b.test", b"u@a.test")
        )
        self.assertEqual(self.route(subject, b"w@a.test"), Route("smtp", "a.test", b"w@a.test"))

    def test_by_sender(self) -> None:
        """What one sender gets is not kept for another, with tables of either kind."""
        entries = {b"s@a.test": b"relay:[one]", b"@b.test": b"DUNNO", b"<>": b"null:"}
        inline = "inline:{ {s@a.test = relay:[one]}, {@b.test = dunno}, {<> = null:} }"
        for table in ("server:x", inline):
            settings = f"sender_dependent_default_transport_maps = {table}\nrelayhost = rh.test\n"
            subject = self.start(settings, entries)
            self.server.at_once = True
            for _ in range(2):
                for sender, transport, nexthop in (
                    (b"s@a.test", "relay", "[one]"),
                    (b"t@a.test", "smtp", "rh.test"),
                    (b"t@b.test", "smtp", "rh.test"),
                    (b"", "null", "rh.test"),
                ):
                    self.assertEqual(
                        subject.resolve(sender, b"u@d.test"), Route(transport, nexthop, b"u@d.test")
                    )

    def test_lists(self) -> None:
        """Each list of domains, asked in the order of the classes and only as far as needed."""
        for parameter, transport, asked in (
            ("mydestination", "local", 1),
            ("virtual_alias_domains", "error", 1),
            ("virtual_mailbox_domains", "virtual", 1),
            ("relay_domains", "relay", 1),
        ):
            subject = self.start(f"{parameter} = server:x\n", {b"a.test": b"yes"})
            self.assertEqual(self.route(subject, b"u@a.test").transport, transport)
            self.assertEqual(self.server.asked[:1], [b"a.test"])
            self.assertEqual(self.route(subject, b"u@b.test").transport, "smtp")
            self.server.entries[b"b.test"] = b"yes"
            self.assertEqual(self.route(subject, b"u@b.test").transport, transport)
            self.assertGreaterEqual(len(self.server.asked), asked)

    def test_routed(self) -> None:
        """A domain that only a server knows to be ours is taken off, and has bare names in tables."""
        subject = self.start(
            "mydestination = server:x\nrelocated_maps = inline:{ {bare = gone} }\n", {b"our.test": b"yes"}
        )
        self.assertEqual(self.route(subject, b"u%a.test@our.test"), Route("smtp", "a.test", b"u@a.test"))
        self.assertEqual(self.route(subject, b"u%a.test@b.test").recipient, b"u%a.test@b.test")
        self.assertEqual(self.route(subject, b"bare@our.test").nexthop, "5.1.6 User has moved to gone")
        self.assertEqual(self.route(subject, b"bare@b.test").transport, "smtp")

    # --- who cannot say -------------------------------------------------------------------------------

    def test_away(self) -> None:
        """Mail waits, with Postfix's words, whatever table it is; and goes when the server is back."""
        for parameter in (
            "transport_maps",
            "relocated_maps",
            "sender_dependent_relayhost_maps",
            "sender_dependent_default_transport_maps",
            "mydestination",
            "virtual_alias_domains",
            "virtual_mailbox_domains",
            "relay_domains",
        ):
            subject = self.start(f"{parameter} = server:x\n")
            self.server.away = True
            retry = Route("retry", "4.3.0 address resolver failure", b"u@a.test")
            del self.events[:]
            self.assertEqual(self.route(subject, b"u@a.test", b"s@s.test"), retry)
            self.assertEqual(self.warnings(), [f"{parameter} lookup failure: server:x: gone"])
            self.server.away = False
            self.assertEqual(self.route(subject, b"u@a.test", b"s@s.test").transport, "smtp")

    def test_not_asked(self) -> None:
        """Who does not depend on the table does not wait for it."""
        subject = self.start("relay_domains = server:x\nmydestination = relay.test\n")
        self.assertEqual(subject.resolve(b"", b"u@relay.test"), Route("local", "relay.test", b"u@relay.test"))
        subject = self.start(
            "sender_dependent_relayhost_maps = server:x\ndefault_transport = smtp:own\n"
            "mydestination = relay.test\n"
        )
        for recipient, nexthop in ((b"u@relay.test", "relay.test"), (b"u@a.test", "own")):
            route = subject.resolve(b"s@s.test", recipient)
            assert isinstance(route, Route)
            self.assertEqual(route.nexthop, nexthop)
        self.assertEqual(self.server.asked, [])

    def test_fails_in_memory(self) -> None:
        """The same with a table that fails at once, after its domain is known."""
        subject = self.start(
            "transport_maps = inline:{ {u@a.test = slow:} }, fail:x\nmydestination = relay.test\n"
        )
        for _ in range(2):
            self.assertEqual(
                subject.resolve(b"", b"v@a.test"),
                Route("retry", "4.3.0 address resolver failure", b"v@a.test"),
            )

    def test_no_transport(self) -> None:
        """A sender's entry without a transport is a mistake: mail waits until it is corrected."""
        subject = self.start("sender_dependent_default_transport_maps = inline:{ {@a.test = :x} }\n")
        self.assertEqual(
            subject.resolve(b"s@a.test", b"u@b.test"),
            Route("retry", "4.3.0 address resolver failure", b"u@b.test"),
        )
        self.assertEqual(
            self.warnings(), ["sender_dependent_default_transport_maps: null transport is not allowed: :x"]
        )

    def test_reload_meanwhile(self) -> None:
        """A reload closes the table that is being asked: the new configuration answers."""
        subject = self.start("transport_maps = server:x\n")
        answer = subject.resolve(b"", b"u@a.test")
        assert isinstance(answer, Deferred)
        subject.reconfigure(config_from_text(BASE + "transport_maps = inline:{ {a.test = new:} }\n"))
        self.server.away = True
        self.server.serve()
        self.assertEqual(self.successResultOf(answer), Route("new", "a.test", b"u@a.test"))
        self.assertEqual(subject.resolve(b"", b"u@a.test"), Route("new", "a.test", b"u@a.test"))

    @given(
        st.dictionaries(
            st.sampled_from([b"u@a.test", b"a.test", b".test", b"*", b"u+x@a.test", b"@a.test", b"u"]),
            st.sampled_from([b"slow:", b"slow:hop", b":hop", b":", b"error:5.1.1 no"]),
        ),
        st.sampled_from([b"u@a.test", b"u+x@a.test", b"v@b.a.test", b"u%a.test@relay.test", b"u"]),
        st.sampled_from(["transport_maps", "sender_dependent_relayhost_maps", "relocated_maps"]),
    )
    def test_same_answers(self, entries: dict[bytes, bytes], recipient: bytes, parameter: str) -> None:
        """A server and a table in memory with the same entries give the same route, asked twice."""
        settings = f"recipient_delimiter = +\nmydestination = relay.test\n{parameter} = "
        inline = ", ".join("{" + f"{k.decode()} = {v.decode()}" + "}" for k, v in entries.items())
        in_memory = self.start(settings + (f"inline:{{ {inline} }}\n" if entries else "\n"))
        waiting = self.start(settings + "server:x\n", entries)
        self.server.at_once = True
        for _ in range(2):
            expected = in_memory.resolve(b"u@a.test", recipient)
            self.assertEqual(waiting.resolve(b"u@a.test", recipient), expected)


class ListedTests(SynchronousTestCase):
    """C{resolve_reject_unknown_recipients}."""

    settings = """
resolve_reject_unknown_recipients = yes
recipient_delimiter = +
mydestination = relay.test
local_recipient_maps = inline:{ {joe = x}, {ann@relay.test = x} } unix:passwd.byname
relay_domains = rel.test, open.test
relay_recipient_maps = inline:{ {u@rel.test = x}, {@open.test = x} }
virtual_mailbox_domains = vmb.test
virtual_mailbox_maps = inline:{ {u@vmb.test = x} }
"""

    def routes(self, settings: str) -> Any:
        """
        @return: gives transport and nexthop.
        """
        subject = Router(config_from_text(BASE + settings), own, 100)  # type: ignore[arg-type]

        def ask(recipient: bytes) -> tuple[str, str]:
            route = subject.resolve(b"", recipient)
            if isinstance(route, Deferred):
                route = self.successResultOf(route)
            return route.transport, route.nexthop

        return ask

    def test_known(self) -> None:
        """Who is in the table of the class is delivered to, with an extension and without."""
        ask = self.routes(self.settings)
        for recipient, transport in (
            (b"joe@relay.test", "local"),
            (b"joe+x@relay.test", "local"),
            (b"JOE@[127.0.0.1]", "local"),
            (b"ann@relay.test", "local"),
            (b"root@relay.test", "local"),
            (b"u@rel.test", "relay"),
            (b"u+x@rel.test", "relay"),
            (b"anybody@open.test", "relay"),
            (b"u@vmb.test", "virtual"),
            (b"anybody@else.test", "smtp"),
        ):
            self.assertEqual(ask(recipient)[0], transport, recipient)

    def test_unknown(self) -> None:
        """Others bounce, in the words of Postfix's SMTP server, with the table or without."""
        for show, tail in (("yes", " in {} recipient table"), ("no", "")):
            ask = self.routes(self.settings + f"show_user_unknown_table_name = {show}\n")
            self.assertEqual(
                ask(b"nobody-here@relay.test"), ("error", "5.1.1 User unknown" + tail.format("local"))
            )
            self.assertEqual(ask(b"v@rel.test"), ("error", "5.1.1 User unknown" + tail.format("relay")))
            mailbox = " in virtual mailbox table" if tail else ""
            self.assertEqual(ask(b"v@vmb.test"), ("error", "5.1.1 User unknown" + mailbox))

    def test_no_table(self) -> None:
        """A class without tables has everybody."""
        ask = self.routes(
            "resolve_reject_unknown_recipients = yes\nmydestination = relay.test\nlocal_recipient_maps =\n"
            "relay_domains = rel.test\nvirtual_mailbox_domains = vmb.test\n"
        )
        for recipient, transport in (
            (b"u@relay.test", "local"),
            (b"u@rel.test", "relay"),
            (b"u@vmb.test", "virtual"),
        ):
            self.assertEqual(ask(recipient)[0], transport)

    def test_off(self) -> None:
        """By default nobody is asked, as in Postfix, and nothing is opened."""
        ask = self.routes(self.settings.replace("= yes", "= no"))
        self.assertEqual(ask(b"nobody-here@relay.test"), ("local", "relay.test"))
        tables = ["local_recipient_maps", "relay_recipient_maps", "alias_maps"]
        off = "".join(f"{name} = texthash:/does/not/exist\n" for name in tables)
        self.assertEqual(self.routes(off)(b"u@relay.test"), ("local", "relay.test"))

    def test_default(self) -> None:
        """By default the local users are those of the system, and the aliases."""
        aliases = Path(self.mktemp()).absolute()
        aliases.write_text("info root\n")
        on = f"resolve_reject_unknown_recipients = yes\nalias_maps = texthash:{aliases}\n"
        ask = self.routes(on + "mydestination = relay.test\n")
        for user in ("root", "info", "INFO"):
            self.assertEqual(ask(user.encode() + b"@relay.test")[0], "local")
        self.assertEqual(ask(b"nobody-here@relay.test")[0], "error")
        kinds = {word.split(":")[0] for word in config_from_text("").string("alias_maps").split()}
        self.assertLessEqual(kinds, set(supported_types([])))

    def test_away(self) -> None:
        """A table that cannot say makes mail wait."""
        ask = self.routes(
            "resolve_reject_unknown_recipients = yes\nlocal_recipient_maps =\nrelay_domains = rel.test\n"
            "relay_recipient_maps = fail:x\n"
        )
        self.assertEqual(ask(b"u@rel.test"), ("retry", "4.3.0 address resolver failure"))
