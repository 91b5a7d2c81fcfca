"""
The table of the manual, which asks a web service.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables import ILookupTable, ILookupTableType, TableList, Tables

MANUAL = Path(__file__).resolve().parent.parent.parent / "docs" / "own-table.rst"


class Answers(Resource):
    """A web service that knows one address."""

    isLeaf = True

    def render_GET(self, request: Any) -> Any:
        if request.uri == b"/aliases/info%40example.org":
            return b"somebody@example.org\n"
        request.setResponseCode(500 if b"broken" in request.uri else 404)
        return b"no"


class OwnTableTests(TestCase):
    """It is run as it is shown."""

    def setUp(self) -> None:
        found = re.search(r"code-block:: python\n\n(.*?)\n(?=\S)", MANUAL.read_text(), re.DOTALL)
        assert found is not None
        names: dict[str, Any] = {}
        exec(compile(textwrap.dedent(found[1]), "example", "exec"), names)
        self.kind = names["rest"]
        self.open = Tables(reactor=reactor, extra=[self.kind]).open

    def served(self) -> str:
        """
        @return: the table of a service that is there.
        """
        port = reactor.listenTCP(0, Site(Answers()), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return f"rest:http://127.0.0.1:{port.getHost().port}/aliases/"

    def opened(self, text: str) -> TableList:
        """
        @return: a parameter with this table.
        """
        tables = TableList(text, "virtual_alias_maps", self.open)
        close: Callable[[], None] = tables.tables[0].close
        self.addCleanup(close)
        return tables

    def test_interfaces(self) -> None:
        """It is what it says it is."""
        verifyObject(IPlugin, self.kind)
        verifyObject(ILookupTableType, self.kind)
        verifyObject(ILookupTable, self.opened("rest:http://127.0.0.1:1/").tables[0])

    async def test_lookup(self) -> None:
        """Found, not found, and could not find out."""
        tables = self.opened(f"{self.served()} inline:{{ {{other@example.org = x}} }}")
        self.assertFalse(tables.immediate)
        self.assertEqual(await tables.lookup(b"Info@example.org"), b"somebody@example.org")
        self.assertIsNone(await tables.lookup(b"nobody@example.org"))
        self.assertEqual(await tables.lookup(b"other@example.org"), b"x")
        error = await self.assertFailure(Deferred.fromCoroutine(tables.lookup(b"broken")), TableError)
        self.assertIn("the server says 500", str(error))

    async def test_no_server(self) -> None:
        """Nobody is there: not the same as nothing."""
        tables = self.opened("rest:http://127.0.0.1:1/")
        await self.assertFailure(Deferred.fromCoroutine(tables.lookup(b"x")), TableError)

    def test_refused(self) -> None:
        """A name that makes no sense ends the start, naming the parameter."""
        error = self.assertRaises(ConfigError, self.open, "rest:localhost", "virtual_alias_maps")
        self.assertIn("virtual_alias_maps: rest:localhost", str(error))
