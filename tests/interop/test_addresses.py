"""
The same addresses through Postfix and through our maps: what is stored of them is the same.

One Postfix has a QMQP port, a cleanup(8) and a trivial-rewrite(8) for each configuration, and no queue
manager: what it stored of a message is read from the queue file with postcat(1).
"""

from __future__ import annotations

import re
import shutil
import smtplib
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.mapping import AddressMaps
from qmqpd_tx.cleanup.recipients import Addressees
from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import IntakeError, TableError
from qmqpd_tx.message import QueueID
from tests.cleanup.cases import Case
from tests.cleanup.support import run
from tests.interop import address_cases as cases
from tests.interop.address_cases import CONFIGURATIONS, AddressCase
from tests.interop.test_content import qmqp
from tests.peers import PrivatePostfix, free_port, require, scratch, wait_for_port

_HEADER = re.compile(rb"([!-9;-~]+):((?:.*)(?:\n[ \t].*)*)\n")


@frozen
class Seen:
    """
    What became of a message.

    @ivar error: the reply, when it was refused.
    @ivar sender: as stored.
    @ivar recipients: as stored, with their original addresses, in order.
    @ivar headers: those that the case brought.
    """

    error: bytes = b""
    sender: bytes = b""
    recipients: Sequence[tuple[bytes, bytes]] = ()
    headers: Sequence[bytes] = ()


def is_remote(configuration: str) -> bool:
    """
    @return: whether mail for a configuration comes from elsewhere, which it can only by SMTP.
    """
    return configuration.startswith("remote")


def smtp(port: int, content: bytes, case: AddressCase) -> bytes:
    """
    @return: the reply to the final dot, with K or D in place of its code.
    """
    with smtplib.SMTP("127.0.0.1", port, "client.test", timeout=30) as client:
        client.helo()
        client.mail(case.sender.decode())
        for recipient in case.recipients:
            client.rcpt(recipient.decode())
        code, text = client.data(content)
    return (b"K" if code == 250 else b"D") + text


class Reference:
    """
    A Postfix with all configurations.

    @param folder: has the table files.
    """

    def __init__(self, folder: Path) -> None:
        self.ports = {name: free_port() for name in CONFIGURATIONS}
        lines = []
        for name, settings in CONFIGURATIONS.items():
            options = "".join(
                f"    -o {{ {key} = {value.replace('FOLDER', str(folder))} }}\n"
                for key, value in settings.items()
            )
            lines += [
                f"{self.ports[name]} inet n - n - 5 {'smtpd' if is_remote(name) else 'qmqpd'}\n"
                f"    -o cleanup_service_name=c_{name}\n    -o rewrite_service_name=r_{name}\n{options}",
                f"c_{name} unix n - n - 0 cleanup\n    -o rewrite_service_name=r_{name}\n{options}",
                f"r_{name} unix - - n - - trivial-rewrite\n{options}",
            ]
        self.postfix = PrivatePostfix({"qmqpd_error_delay": "0", "mynetworks": "127.0.0.0/8"}, "".join(lines))
        master = self.postfix.config / "master.cf"
        master.write_text(re.sub(r"(?m)^qmgr .*\n", "", master.read_text()))

    def start(self) -> None:
        """Start it."""
        self.postfix.start()
        for port in self.ports.values():
            wait_for_port(port)

    def store(self, case: AddressCase) -> Seen:
        """
        Send a message, and read what was stored.
        """
        content = b"".join(line + b"\n" for line in (b"Subject: x", *case.headers)) + b"\nbody\n"
        port = self.ports[case.configuration]
        if is_remote(case.configuration):
            reply = smtp(port, content, case)
        else:
            reply = qmqp(port, Case("", content, case.sender, tuple(case.recipients)))
        if not reply.startswith(b"K"):
            return Seen(reply)
        queue_id = reply.rpartition(b" ")[2].decode()
        path = next(path for path in self.postfix.spool.rglob(queue_id) if path.is_file())
        text = subprocess.run(
            [require("postcat"), "-c", str(self.postfix.config), str(path)], capture_output=True, check=True
        ).stdout
        envelope, _, rest = text.partition(b"*** MESSAGE CONTENTS ")
        stored, _, extracted = rest.partition(b"*** HEADER EXTRACTED ")
        sender, original = b"", b""
        recipients = []
        for line in (envelope + extracted).splitlines():
            key, _, value = line.partition(b": ")
            if key == b"sender":
                sender = value
            elif key == b"original_recipient":
                original = value
            elif key == b"recipient":
                recipients.append((value, original))
        header = stored.partition(b"***\n")[2].partition(b"\n\n")[0] + b"\n"
        wanted = {line.partition(b":")[0] for line in case.headers}
        found = [name + b":" + value for name, value in _HEADER.findall(header) if name in wanted]
        return Seen(b"", sender, recipients, found)


class Ours:
    """
    Our maps in all configurations.

    @param folder: has the table files.
    """

    def __init__(self, folder: Path) -> None:
        self._maps: dict[str, AddressMaps] = {}
        for name, settings in CONFIGURATIONS.items():
            text = "".join(
                f"{key} = {value.replace('FOLDER', str(folder))}\n"
                for key, value in {"mydestination": "", "compatibility_level": "3.6", **settings}.items()
                if key != "receive_override_options"
            )
            config = config_from_text("myhostname = relay.test\ninet_interfaces = 127.0.0.1\n" + text)
            self._maps[name] = AddressMaps.from_config(config).variant(
                mappings="receive_override_options" not in settings,
                remote_domain=config.string("remote_header_rewrite_domain") if is_remote(name) else None,
            )

    def store(self, case: AddressCase) -> Seen:
        """
        @return: what would be stored.
        """
        maps = self._maps[case.configuration]
        try:
            return run(self._store(case, maps, QueueID("ID")))
        except IntakeError as error:
            return Seen((b"D" if error.permanent else b"Z") + error.text.encode())
        except TableError:
            return Seen(b"ZError: queue file write error")

    @staticmethod
    async def _store(case: AddressCase, maps: AddressMaps, queue_id: QueueID) -> Seen:
        headers = []
        for line in case.headers:
            name, _, value = line.partition(b":")
            changed = await maps.header(name, value, queue_id)
            headers.append(line if changed is None else name + b":" + changed)
        sender = await maps.sender(case.sender, queue_id)
        addressees = Addressees(maps, queue_id)
        found = [*await addressees.of_sender(sender)]
        for recipient in case.recipients:
            found += await addressees.of_recipient(recipient)
        found += await addressees.copies()
        return Seen(b"", sender, [(one.address, one.original) for one in found], headers)


class AddressComparison(SynchronousTestCase):
    """Postfix and we agree on addresses."""

    def setUp(self) -> None:
        """
        The table files, and Postfix.
        """
        folder = scratch()
        self.addCleanup(shutil.rmtree, folder)
        for name, text in (
            ("table", cases.ENTRIES),
            ("bcc", cases.BCC),
            ("patterns", cases.PATTERNS),
            ("patterns2", cases.PATTERNS2),
        ):
            (folder / name).write_text(text, "utf-8")
        self.ours = Ours(folder)
        self.reference = Reference(folder)
        self.addCleanup(self.reference.postfix.stop)
        self.reference.start()

    def test_same(self) -> None:
        """
        All cases.
        """
        self.assertEqual(self.different(cases.COMPLETION), [])
        self.assertEqual(self.different(cases.CANONICAL), [])
        self.assertEqual(self.different(cases.MASQUERADE), [])
        self.assertEqual(self.different(cases.REMOTE), [])
        self.assertEqual(self.different(cases.VIRTUAL), [])
        self.assertEqual(self.different(cases.COPIES), [])
        # What is documented as a difference must be one.
        self.assertEqual(len(self.different(cases.KNOWN)), len(cases.KNOWN))

    def different(self, these: Iterable[AddressCase]) -> list[str]:
        """
        @return: what differs, for people.
        """
        found = []
        for case in these:
            theirs, ours = self.reference.store(case), self.ours.store(case)
            if theirs != ours:
                found.append(f"{case}:\n  Postfix {theirs}\n  ours    {ours}")
        return found
