"""
The manual's own examples, run.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sqlite3
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.address import Router
from qmqpd_tx.admin.main import run
from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.config import config_from_text
from qmqpd_tx.intake import intakes
from qmqpd_tx.interfaces import DeliveryRequest, IDeliveryAgent, IDeliveryTransport
from qmqpd_tx.message import Envelope, QueueID, Recipient
from qmqpd_tx.status import Action
from qmqpd_tx.tables import TableList, Tables
from qmqpd_tx.tables.registry import supported_types
from qmqpd_tx.transports import registry

DOCS = Path(__file__).resolve().parent.parent / "docs"


def deliver_with(agent: Any) -> list[tuple[Action, str]]:
    """
    @return: what the agent, as a line of master.cf, reports on two recipients.
    """
    transports = registry.TransportRegistry(object(), None, [agent])
    transports.reconfigure(config_from_text("", "count unix - - n - - counter\n"))
    transport = transports.get("count")
    assert transport is not None
    verifyObject(IDeliveryTransport, transport)
    recipients = [Recipient(address, address, position) for position, address in enumerate([b"a@x", b"b@x"])]
    envelope = Envelope(b"s@x", 0.0, None, b"", False, None, {})
    request = DeliveryRequest(QueueID("0"), "count", "", b"s@x", recipients, None, envelope)
    reports: list[Any] = []
    transport.deliver(request).addCallback(reports.append)
    return [(outcome.action, outcome.text) for outcome in reports[0].outcomes]


class OwnTransportTests(SynchronousTestCase):
    """The delivery agent in twenty lines, in both places where it is shown."""

    def check(self, example: str) -> None:
        """
        Run the example and use it.
        """
        names: dict[str, Any] = {}
        exec(compile(textwrap.dedent(example), "example", "exec"), names)
        agent = names["counter"]
        verifyObject(IDeliveryAgent, agent)
        verifyObject(IPlugin, agent)
        self.assertEqual(deliver_with(agent), [(Action.SENT, "counted 2")] * 2)

    def test_manual(self) -> None:
        """The one in the manual works as shown."""
        text = (DOCS / "own-transport.rst").read_text()
        found = re.search(r"code-block:: python\n\n(.*?)\n(?=\S)", text, re.DOTALL)
        assert found is not None
        self.check(found[1])

    def test_registry(self) -> None:
        """The one in the registry's contract works as shown."""
        found = re.search(r"on the path::\n\n(.*?)\n(?=\S)", registry.__doc__ or "", re.DOTALL)
        assert found is not None
        self.check(found[1])


PLACE = "/etc/qmqpd_tx"
"""Where the manual's files are."""


def literal_blocks(page: str) -> list[str]:
    """
    @return: the literal blocks of a page, without their indentation.
    """
    found = re.findall(r"::\n\n((?: +.*\n|\n)+)", (DOCS / page).read_text("utf-8"))
    return [textwrap.dedent(block) for block in found]


def sections(block: str) -> Iterator[tuple[str, str]]:
    """
    @param block: with lines such as C{# main.cf} or C{# /etc/qmqpd_tx/virtual}, each before the content of
        that file.
    @return: names and contents.
    """
    parts = re.split(r"^# (/\S+|main\.cf|master\.cf)\n", block, flags=re.MULTILINE)
    return zip(parts[1::2], parts[2::2], strict=True)


def configurations(page: str) -> list[str]:
    """
    @return: what is shown of main.cf.
    """
    return [
        content for block in literal_blocks(page) for name, content in sections(block) if name == "main.cf"
    ]


class TablesTests(TestCase):
    """The page of lookup tables: each table is opened, and each command gives the answer that is shown."""

    def setUp(self) -> None:
        # Paths of the manual become longer by this, and lines of main.cf have no limit.
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "main.cf").write_text("myhostname = mx.example.org\n")

    def here(self, text: str) -> str:
        """
        @return: a text of the manual, for files in our folder.
        """
        return text.replace(PLACE, str(self.folder))

    def command(self, line: str) -> tuple[int, str]:
        """
        Do what a shell would.

        @return: exit status and standard output.
        """
        name, *arguments = shlex.split(self.here(line))
        if name == "sqlite3":
            with contextlib.closing(sqlite3.connect(arguments[0])) as database, database:
                database.execute(arguments[1])
            return 0, ""
        self.assertEqual(name, "qmqpd-tx")
        output = io.TextIOWrapper(io.BytesIO(), write_through=True)
        with contextlib.redirect_stdout(output):
            status = run(["-c", str(self.folder), *arguments])
        output.seek(0)
        return status, output.read()

    def write_files(self, text: str) -> None:
        """
        Make the files that are shown.
        """
        for name, content in sections(text):
            if name.startswith(PLACE):
                Path(self.here(name)).write_text(self.here(content))

    def test_sessions(self) -> None:
        """What is shown at a prompt is what happens."""
        commands = 0
        for block in literal_blocks("tables.rst"):
            shown, *steps = re.split(r"^\$ ", block, flags=re.MULTILINE)
            self.write_files(shown)
            for step in steps:
                line, _, rest = step.partition("\n")
                expected, *_ = re.split(r"^# ", rest, flags=re.MULTILINE)
                status, output = self.command(line)
                self.assertEqual(status, 0, line)
                pattern = r"\s+".join(map(re.escape, expected.split())).replace(r"\.\.\.", ".*")
                self.assertRegex(output.strip(), f"^{pattern}$", line)
                self.write_files(rest)
                commands += 1
        self.assertGreater(commands, 15)

    def test_servers(self) -> None:
        """Tables that are not asked here are tables all the same, and have to be waited for."""
        from twisted.internet import reactor

        for block in literal_blocks("tables.rst"):
            self.write_files(block)
        opened = []
        for shown in configurations("tables.rst"):
            config = config_from_text(self.here(shown))
            self.assertEqual(config.warnings(), [])
            tables = Tables(reactor, setting=config.string)
            for name in re.findall(r"^(\w+) =", shown, re.MULTILINE):
                maps = TableList(config.string(name), name, tables.open)
                self.assertFalse(maps.immediate)
                opened.append(maps.tables[0].name.partition(":")[0])
            tables.close()
        self.assertEqual(sorted(opened), ["pgsql", "socketmap", "tcp"])

    def test_all_types(self) -> None:
        """The page has all types, and says of each whether it answers at once."""
        text = (DOCS / "tables.rst").read_text("utf-8")
        rows = re.findall(r"^(``.*?``)  +(\S+(?: \S+)*)  +(at once|later|as \w+)", text, re.MULTILINE)
        shown = {kind for names, _, _ in rows for kind in re.findall(r"``(\w+)``", names)}
        self.assertEqual(shown, set(supported_types([])))


class ConfigurationTests(SynchronousTestCase):
    """What the manual shows of main.cf and master.cf can be used, and has effect."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def check(self, block: str) -> None:
        """
        Make all that intake and routing make of a configuration.
        """
        files = {"main.cf": block} if "# main.cf" not in block and "# master.cf" not in block else {}
        for name, content in sections(block):
            files[name] = content.replace(PLACE, str(self.folder))
            if name.startswith(PLACE):
                Path(name.replace(PLACE, str(self.folder))).write_text(content)
        main = files.get("main.cf", "")
        for line in ("myhostname = mx.example.org\n", f"queue_directory = {self.folder}\n"):
            # What is shown must not be set twice.
            if f"\n{line.partition('=')[0]}=" not in "\n" + main:
                main = line + main
        config = config_from_text(main, files.get("master.cf"))
        self.assertEqual(config.warnings(), [], block)
        tables = Tables(Clock(), setting=config.string)
        self.addCleanup(tables.close)
        Router(config, open_table=tables.open)
        services = intakes(config, (), tables.open)
        names = {service.cleanup for service in services}
        for line in config.services:
            if line.command == "cleanup":
                names.discard(line.name)
            Cleanup(config=config.for_service(line), clock=Clock(), queue=object(), open_table=tables.open)
        self.assertLessEqual(names, {"cleanup"})

    def test_guide(self) -> None:
        """Nothing that is shown is refused or warned of."""
        text = (DOCS / "guide.rst").read_text("utf-8")
        blocks = re.findall(r"code-block:: ini\n\n((?: +.*\n|\n)+)", text)
        shown = [textwrap.dedent(block) for block in blocks if "[Service]" not in block]
        self.assertGreater(len(shown), 8)
        for block in shown:
            self.check(block)

    def test_readme(self) -> None:
        """The example there is understood, too."""
        found = re.search(r"```ini\n(.*?)```", (DOCS.parent / "README.md").read_text("utf-8"), re.DOTALL)
        assert found is not None
        self.assertEqual(config_from_text(found[1]).warnings(), [])


class ArchitectureTests(SynchronousTestCase):
    """The page about the rooms."""

    def test_names(self) -> None:
        """It names modules that are there, and all rooms."""
        text = (DOCS / "architecture.rst").read_text("utf-8")
        package = DOCS.parent / "qmqpd_tx"
        rooms = {path.parent.name for path in package.glob("*/__init__.py")}
        names = re.findall(r"``(?:qmqpd_tx\.)?(\w+)\.(\w+)``", text)
        modules = [(room, name) for room, name in names if room in rooms]
        self.assertGreater(len(modules), 15)
        for room, name in modules:
            places = (package / room / f"{name}.py", package / room / name / "__init__.py")
            self.assertTrue(any(place.exists() for place in places), f"{room}.{name}")
        for module in {*rooms, *(path.stem for path in package.glob("*.py"))} - {"__init__"}:
            self.assertIn(f"``{module}``", text)
