"""
What Postfix's qmqpd answers under other configurations than the default, and what we do: side by side. The
lists of clients are the real ones, made from the same lines of main.cf.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from qmqpd_tx.address.own import is_local_address
from qmqpd_tx.config import config_from_text
from qmqpd_tx.netstring import encode
from qmqpd_tx.qmqp.clients import read_client_lists
from qmqpd_tx.qmqp.hostnames import ClientNames
from qmqpd_tx.qmqp.hosts import HostsFile
from qmqpd_tx.qmqp.server import QMQPServerFactory
from qmqpd_tx.tables import HostMatchList, open_table
from tests.interop.test_qmqp_wire import PLAIN, normal_reply, talk
from tests.peers import PrivatePostfix
from tests.qmqp.cleanup import MemoryCleanup
from tests.qmqp.packets import SENDER, packet

FORMAT_ERROR = encode(b"2:x\n," + encode(SENDER) + b"x")

SETTINGS: dict[str, tuple[dict[str, str], dict[str, bytes]]] = {
    "soft_bounce": (
        {"soft_bounce": "yes"},
        {
            "a message": PLAIN,
            "no recipients": packet(recipients=[]),
            "format error": FORMAT_ERROR,
            "too large": b"20000000:10240001:",
            "VERP delimiter": packet(sender=b"list!@example.com-@[]"),
        },
    ),
    "another verp_delimiter_filter": (
        {"verp_delimiter_filter": "!=", "default_verp_delimiters": "!="},
        {
            "allowed": packet(sender=b"list!@example.com-@[]"),
            "usual": packet(sender=b"list-@example.com-@[]"),
        },
    ),
    "message_size_limit": (
        {"message_size_limit": "1000"},
        {
            "announced": b"2000:1001:",
            "at the limit": packet(content=b"x" * 1000 + b"\n")[:20],
            "small": PLAIN,
        },
    ),
    "line_length_limit": (
        {"line_length_limit": "600"},
        {
            "recipient at the limit": packet(recipients=[b"a" * 588 + b"@example.org"]),
            "recipient too long": packet(recipients=[b"a" * 589 + b"@example.org"]),
            "long line of content": packet(content=b"Subject: x\n\n" + b"x" * 5000 + b"\n"),
        },
    ),
    "debug_peer_list that cannot be asked": ({"debug_peer_list": "fail:x"}, {"a message": PLAIN}),
    "client list that cannot be asked": ({"qmqpd_authorized_clients": "fail:x"}, {"nothing": b""}),
    "client list with an exclusion": (
        {"qmqpd_authorized_clients": "!127.0.0.1, 127.0.0.0/8"},
        {"nothing": b""},
    ),
    "client list by name": ({"qmqpd_authorized_clients": "localhost"}, {"a message": PLAIN}),
    "client list by table": (
        {"qmqpd_authorized_clients": "inline:{ {127.0.0.1 = x} }"},
        {"a message": PLAIN},
    ),
    "nobody, and soft_bounce": (
        {"qmqpd_authorized_clients": "", "soft_bounce": "yes"},
        {"nothing": b""},
    ),
    "receive_override_options and content_filter": (
        {
            "receive_override_options": "no_address_mappings, no_header_body_checks, no_milters",
            "content_filter": "discard:",
        },
        {"a message": PLAIN},
    ),
}
"""Other configurations, and what is sent to a server with them: both sides must say the same."""


class SettingsTests(TestCase):
    """One Postfix and one server of ours for each configuration."""

    timeout = 240

    def server(self, text: str) -> QMQPServerFactory:
        """Our server, as the composition root makes it."""
        from twisted.internet import reactor

        clock: Any = reactor
        config = config_from_text(text)
        lists = read_client_lists(
            config,
            lambda words, name, parents: HostMatchList(words, name, parents),
            open_table,
            is_local_address,
        )
        names = ClientNames(clock, None, HostsFile(clock, None, "127.0.0.1 localhost"))  # type: ignore[arg-type]
        return QMQPServerFactory(config, clock, MemoryCleanup(), lists, names)

    async def compare(self, settings: dict[str, str], cases: dict[str, bytes]) -> None:
        from twisted.internet import reactor

        usual = {"qmqpd_error_delay": "0", "qmqpd_authorized_clients": "127.0.0.1", **settings}
        with PrivatePostfix({"default_transport": "discard", **usual}) as postfix:
            theirs = {
                name: normal_reply(await deferToThread(talk, postfix.port, data))
                for name, data in cases.items()
            }
        text = "".join(f"{name} = {value}\n" for name, value in usual.items())
        factory = self.server(text)
        clock: Any = reactor
        port: Any = await factory.listen(TCP4ServerEndpoint(clock, 0, interface="127.0.0.1"))
        try:
            ours = {
                name: normal_reply(await deferToThread(talk, port.getHost().port, data))
                for name, data in cases.items()
            }
        finally:
            await factory.stop()
        self.assertEqual((settings, ours), (settings, theirs))

    async def test_side_by_side(self) -> None:
        for settings, cases in SETTINGS.values():
            await self.compare(settings, cases)
