"""
The router beside Postfix's trivial-rewrite(8): same address, same configuration, same route.

One private Postfix runs a trivial-rewrite service for each configuration below. An address goes
through it as QMQP mail does: rewritten in the local context by cleanup(8), then resolved by qmgr(8).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from itertools import product

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address import Router, quote_address, split_address, unquote_local_part
from qmqpd_tx.address.resolve import BAD_SYNTAX
from qmqpd_tx.address.rewrite import AddressRewriter
from qmqpd_tx.config import config_from_text
from tests.interop.routing_cases import CASES, FILES
from tests.peers import PrivatePostfix

BAD_ADDRESS = 4
"""The flag with which trivial-rewrite says that an address has problems."""

FAILED = 8
"""The flag with which it says that a table could not be asked."""

TRANSPORT_TABLE = """\
# comment
user+ext@ext.test  slow:exthop
user@ext.test  slow:userhop
EXT.test  slow:domhop
.sub.test  slow:subhop
sub.test  slow:
keep.test  :
hop.test  :[gateway.test]:2525
err.test  error:5.1.2 no such
    place
err2.test  error:mail is not deliverable
errn.test  error:
retry.test  retry:4.3.5 later
retryn.test  retry:
disc.test  discard:gone away
mailer-daemon@relay.test  slow:nullhop
[10.9.9.9]  slow:lithop
bad.test  nocolon
bad2.test  ::x
loc.test  local:
multi.test  smtp:a.test, b.test
localpart  slow:lphop
UP.test  slow:UPhop
"q u"@ext.test  slow:quoted
top.test  slow:tophop
"""

CONFIGURATIONS: Mapping[str, Mapping[str, str]] = {
    "table": {
        "transport_maps": "texthash:{folder}/transport",
        "recipient_delimiter": "+",
        "mydestination": "relay.test, localhost, dest.test",
        "relay_domains": "rel.test, .dotrel.test",
        "virtual_mailbox_domains": "vmb.test",
        "virtual_alias_domains": "va.test",
    },
    "relayhost": {
        "relayhost": "[127.0.0.1]:2525",
        "allow_percent_hack": "no",
        "swap_bangpath": "no",
        "resolve_dequoted_address": "no",
        "relay_domains": "rel.test",
        "mydestination": "relay.test",
    },
    "nothing local": {
        "default_transport": "slow",
        "relayhost": "rh.test",
        "relay_transport": "relay:[rt.test]",
        "relay_domains": "rel.test",
        "parent_domain_matches_subdomains": "",
        "resolve_null_domain": "yes",
        "resolve_numeric_domain": "yes",
        "mydestination": "",
        "local_transport": "local",
        "virtual_transport": "lmtp:unix:x",
        "virtual_mailbox_domains": "vmb.test",
    },
    "inline": {
        "transport_maps": "inline:{{ {{* = slow:star}}, keep.test=:, {{sub.test = slow:}} }}",
        "append_dot_mydomain": "yes",
        "mydestination": "$myhostname, !not.sub.test, .sub.test",
        "allow_min_user": "yes",
        "parent_domain_matches_subdomains": "transport_maps",
        "default_transport": "smtp:dt.test",
        "relayhost": "rh.test",
        "recipient_delimiter": "-+",
    },
    "lists": {
        "default_transport": "error:5.7.1 nothing",
        "mydestination": "!relay.test, {folder}/domains, texthash:{folder}/domaintable",
        "proxy_interfaces": "10.1.1.1",
        "myorigin": "origin.test",
    },
    "static": {
        "transport_maps": "static:{{ :[everything.test] }}",
        "default_transport": "error",
        "mydestination": "localhost",
    },
}

ADDRESSES = """\

user
user@
user@relay.test
User@RELAY.test
user@dest.test
user@dest.test.
user@dest.test..
user@sub.dest.test
user@ext.test
user+ext@ext.test
user+foo@ext.test
foo+ext@ext.test
USER+EXT@EXT.test
+ext@ext.test
user@x.ext.test
user@sub.test
user@a.sub.test
user@b.a.sub.test
user@not.sub.test
user@keep.test
user@x.keep.test
user@hop.test
user@err.test
user@err2.test
user@errn.test
user@retry.test
user@retryn.test
user@disc.test
user@bad.test
user@bad2.test
user@loc.test
user@multi.test
user@UP.TEST
user@Mixed.Case.TEST
user@x.top.test
user@rel.test
user@x.rel.test
user@dotrel.test
user@x.dotrel.test
user@vmb.test
user@va.test
user@listed.test
user@sub.listed.test
user@intable.test
user@x.intable.test
user@[127.0.0.1]
user@[10.1.1.1]
user@[10.9.9.9]
user@[IPv6:::1]
user@[ipv6:2001:db8::1]
user@[::1]
user@[1.2.3]
user@10.9.9.8
user@127.0.0.1
user%example.com
user%example.com@relay.test
user%a.test%example.com@relay.test
user%example.com@other.test
host!user
host!user@relay.test
a.test!b.test!user@relay.test
a!user@other.test
host!user%b.test
host!user%b.test@relay.test
@a.test:user@example.com
@a.test,@b.test:user@example.com
@a.test:user
@relay.test:user@relay.test
user@a.test@b.test
a@b.test@relay.test
user@relay.test@relay.test
user name@ext.test
q u@ext.test
user name@relay.test
a b%c.test@relay.test
a"b@example.com
-user@example.com
host!-user
user@-bad.test
user@bad-.test
user@bad_host.test
user@b..test
user@.test
user@host
.user@example.com
us..er@example.com
us,er@example.com
us(comment)er@example.com
double-bounce
double-bounce@relay.test
mailer-daemon
MAILER-DAEMON@other.test
mailer-daemon+x@relay.test
\u00e9@example.com
user@ex\u00e4mple.com
@example.com
%example.com@relay.test
!user@relay.test
host!@relay.test
user%@relay.test
localpart
/etc/passwd@relay.test
|cmd@relay.test
user+ext
owner-list@ext.test
list-request@ext.test
user-x@ext.test
"""


class Rewrite:
    """
    A client of a trivial-rewrite service.

    @param path: its socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, **attributes: bytes) -> dict[str, bytes]:
        """
        @return: the attributes of the answer.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(self._path)
            self._read(connection)  # its greeting
            request = b"".join(name.encode() + b"\0" + value + b"\0" for name, value in attributes.items())
            connection.sendall(request + b"\0")
            fields = self._read(connection).split(b"\0")
        return {name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=False)}

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        data = b""
        while not data.endswith(b"\0\0") or (data.count(b"\0") % 2 == 0 and len(data) < 40):
            chunk = connection.recv(65536)
            if not chunk:
                break
            data += chunk
        return data

    def route(self, address: bytes, sender: bytes = b"") -> tuple[str, str, bytes]:
        """
        @return: transport, nexthop and recipient, for addresses in internal form.
        """
        # cleanup(8) leaves a source route unquoted.
        external = address if address.startswith(b"@") and b":" in address else quote_address(address)
        answer = self.ask(request=b"rewrite", rule=b"local", address=external)
        local, domain = split_address(answer["address"])
        internal = unquote_local_part(local) + (b"" if domain is None else b"@" + domain)
        answer = self.ask(request=b"resolve", sender=sender, address=internal)
        if int(answer["flags"]) & FAILED:
            # What qmgr(8) makes of it.
            return "retry", "4.3.0 address resolver failure", internal
        if int(answer["flags"]) & BAD_ADDRESS:
            return "error", "5.1.3 bad address syntax", b""
        return answer["transport"].decode(), answer["nexthop"].decode(), answer["recipient"]


def serve(postfix: PrivatePostfix, configurations: Iterable[Mapping[str, str]]) -> None:
    """
    Give a Postfix one trivial-rewrite service for each configuration, and start it.
    """
    lines = []
    for number, settings in enumerate(configurations):
        options = "".join(
            f"  -o {{ {name} = {value.format(folder=postfix.folder)} }}\n" for name, value in settings.items()
        )
        lines.append(f"route{number} unix - - n - 1 trivial-rewrite\n{options}")
    with (postfix.config / "master.cf").open("a") as master:
        master.write("".join(lines))
    postfix.start()


def ours(postfix: PrivatePostfix, settings: Mapping[str, str]) -> tuple[Router, AddressRewriter]:
    """
    @return: our router, and what cleanup(8) completes addresses with, with the same configuration.
    """
    config = config_from_text(
        "compatibility_level = 3.6\nmyhostname = relay.test\ninet_interfaces = 127.0.0.1\n"
        + "".join(f"{key} = {value.format(folder=postfix.folder)}\n" for key, value in settings.items())
    )
    return Router(config), AddressRewriter.from_config(config)


def folded(route: tuple[str, str, bytes]) -> tuple[str, str, bytes]:
    """
    A nexthop that is the recipient's domain has its ASCII letters in lower case here, so that its spellings
    are one destination (docs/differences); Postfix folds it only to find the destination.

    @return: Postfix's route as it would be then.
    """
    transport, nexthop, recipient = route
    if nexthop.encode() == recipient.rpartition(b"@")[2]:
        nexthop = nexthop.encode().lower().decode()
    return transport, nexthop, recipient


class CaseTests(SynchronousTestCase):
    """The cases of L{tests.interop.routing_cases}."""

    def test_same_routes(self) -> None:
        """Each sender and recipient get Postfix's route; where it cannot find out, mail waits in both."""
        postfix = PrivatePostfix()
        self.addCleanup(postfix.stop)
        for name, text in FILES.items():
            (postfix.folder / name).write_text(text)
        serve(postfix, (case.settings for case in CASES.values()))
        asked, found = 0, []
        for number, (name, case) in enumerate(CASES.items()):
            rewrite = Rewrite(os.path.join(postfix.spool, "private", f"route{number}"))
            router, rewriter = ours(postfix, case.settings)
            for sender, recipient in product(case.senders, case.recipients):
                asked += 1
                expected = folded(rewrite.route(recipient.encode(), sender.encode()))
                # Twice: what a domain gives is remembered, what a sender gives is not.
                for _ in range(2):
                    route = router.resolve(sender.encode(), rewriter.rewrite(recipient.encode()))
                    if isinstance(route, Deferred):
                        route = self.successResultOf(route)
                    actual = (route.transport, route.nexthop, route.recipient)
                    if expected[1] == BAD_SYNTAX:
                        actual = (*actual[:2], b"")
                    if actual != expected:
                        found.append(f"{name}: <{sender}> to <{recipient}>: Postfix {expected}, we {actual}")
        log = [line for line in postfix.log().splitlines() if "rewrite" in line and "warning" in line]
        self.assertEqual(found, [], "\n" + "\n".join([*found, *log[-20:]]))
        self.assertGreaterEqual(asked, 300)


class RoutingTests(SynchronousTestCase):
    """Each configuration, each address."""

    def compare(self, name: str, rewrite: Rewrite, router: Router, rewriter: AddressRewriter) -> list[str]:
        """
        @return: the addresses that get another route, with both.
        """
        found = []
        for line in ADDRESSES.splitlines():
            address = line.encode()
            expected = rewrite.route(address)
            route = router.resolve(b"", rewriter.rewrite(address))
            actual = (route.transport, route.nexthop, route.recipient)
            if expected[1] == "5.1.3 bad address syntax":
                actual = (route.transport, route.nexthop, b"")
            if actual != folded(expected):
                found.append(f"{name}: {line!r}: Postfix {expected}, we {actual}")
        return found

    def test_same_routes(self) -> None:
        """Every address gets Postfix's transport, nexthop and recipient."""
        postfix = PrivatePostfix()
        self.addCleanup(postfix.stop)
        (postfix.folder / "transport").write_text(TRANSPORT_TABLE)
        (postfix.folder / "domains").write_text("# domains\nlisted.test,\n  relay.test\n")
        (postfix.folder / "domaintable").write_text("intable.test yes\n.intable.test yes\n")
        serve(postfix, CONFIGURATIONS.values())
        found = []
        for number, (name, settings) in enumerate(CONFIGURATIONS.items()):
            router, rewriter = ours(postfix, settings)
            rewrite = Rewrite(os.path.join(postfix.spool, "private", f"route{number}"))
            found += self.compare(name, rewrite, router, rewriter)
        log = [line for line in postfix.log().splitlines() if "rewrite" in line and "warning" in line]
        self.assertEqual(found, [], "\n" + "\n".join([*found, *log[-20:]]))
        self.assertGreaterEqual(len(ADDRESSES.splitlines()), 30)
