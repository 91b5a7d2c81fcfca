"""
The keeper of open tables: what it shares, what it notices, and how it goes back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables import (
    DomainMatchList,
    ILookupTable,
    ILookupTableType,
    TableContext,
    Tables,
    open_table,
)
from qmqpd_tx.tables.keeper import RETIRED


@implementer(ILookupTable)
@define(slots=True)
class Page:
    """A table that is a file, whose content is the answer."""

    name: str
    value: bytes
    sources: tuple[str, ...]
    open: bool = True
    breaks: bool = False
    fixed_keys = True
    immediate = True
    stable = True

    def lookup(self, key: bytes) -> bytes | None:
        assert self.open, "closed"
        return self.value

    def close(self) -> None:
        self.open = False
        if self.breaks:
            raise OSError("no")


@implementer(ILookupTableType)
@define(slots=True)
class Pages:
    """
    Opens pages.

    @ivar interrupt: called while a file is being read.
    """

    opened: list[Page] = Factory(list)
    interrupt: Callable[[], None] = lambda: None
    type = "page"

    def open(self, name: str, context: TableContext) -> Page:
        context.watch(name)
        try:
            value = Path(name).read_bytes()
        except OSError as error:
            raise ConfigError(f"{context.parameter}: {error}") from None
        self.interrupt()
        self.opened.append(Page(f"page:{name}", value, (name,)))
        return self.opened[-1]


class Case(SynchronousTestCase):
    """Has files that change."""

    def setUp(self) -> None:
        self.turn = 0

    def file(self, content: str, path: Path | None = None) -> Path:
        """
        Write a file, so that it can be told from what it was.
        """
        if path is None:
            path = Path(self.mktemp()).absolute()
        path.write_text(content)
        self.turn += 1
        os.utime(path, ns=(self.turn, self.turn))
        return path


class KeeperTests(Case):
    """L{Tables}."""

    def setUp(self) -> None:
        super().setUp()
        self.pages = Pages()
        self.tables = Tables(extra=[self.pages])
        self.path = self.file("one")

    def get(self, text: str | None = None) -> ILookupTable:
        """
        @return: the table of this name.
        """
        return self.tables.open(text or f"page:{self.path}", "some_maps")

    def test_shared(self) -> None:
        """Two parameters with the same table have one."""
        self.assertIs(self.get(), self.tables.open(f"page:{self.path}", "other_maps"))
        self.assertEqual(len(self.pages.opened), 1)

    def test_unchanged(self) -> None:
        """A table whose file has not changed is given to the next generation."""
        table = self.get()
        self.assertEqual(self.tables.changed(), [])
        self.tables.renew()
        self.assertIs(self.get(), table)
        self.tables.keep()
        self.assertEqual(table.lookup(b"x"), b"one")

    def test_changed(self) -> None:
        """One whose file has is noticed, opened anew, and the old one closed only when it is kept."""
        table = self.get()
        self.file("two", self.path)
        self.assertEqual(self.tables.changed(), [str(self.path)])
        self.assertIs(self.get(), table)
        self.tables.renew()
        new = self.get()
        self.assertEqual((table.lookup(b"x"), new.lookup(b"x")), (b"one", b"two"))
        self.tables.keep()
        self.assertFalse(self.pages.opened[0].open)
        self.assertEqual(self.tables.changed(), [])

    def test_same_size_and_time(self) -> None:
        """A file that is replaced by another one of the same size and time is noticed."""
        self.get()
        other = Path(self.mktemp()).absolute()
        other.write_text("two")
        os.utime(other, ns=(self.turn, self.turn))
        other.rename(self.path)
        self.assertEqual(self.tables.changed(), [str(self.path)])

    def test_no_longer_asked_for(self) -> None:
        """A table that the new generation does not ask for is closed."""
        self.get()
        self.tables.renew()
        self.tables.keep()
        self.assertFalse(self.pages.opened[0].open)
        self.path.unlink()
        self.assertEqual(self.tables.changed(), [])

    def test_undo(self) -> None:
        """Back to what was, even when the files are gone, or make no sense, or a table cannot be closed."""
        table = self.get()
        other = self.file("other")
        self.tables.renew()
        self.file("two", self.path)
        self.assertIsNot(self.get(), table)
        self.get(f"page:{other}")
        self.pages.opened[1].breaks = True
        self.path.unlink()
        self.assertRaises(ConfigError, self.get, "page:/no/such")
        self.tables.undo()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertIs(self.get(), table)
        self.assertEqual(table.lookup(b"x"), b"one")
        self.assertFalse(self.pages.opened[2].open)
        self.assertEqual(self.tables.changed(), [str(self.path)])

    def test_undo_nothing(self) -> None:
        """Where nothing was begun, nothing is undone; what was begun twice is undone at the second time."""
        table = self.get()
        self.tables.undo()
        self.assertIs(self.get(), table)
        self.tables.renew()
        self.tables.renew()
        self.tables.undo()
        self.assertIs(self.get(), table)
        self.assertEqual(table.lookup(b"x"), b"one")

    def test_settings(self) -> None:
        """Each generation has its own parameters."""
        seen = []

        @implementer(ILookupTableType)
        class Settings:
            type = "settings"

            def open(self, name: str, context: TableContext) -> ILookupTable:
                seen.append(context.setting("x"))
                return open_table("static:x", "p")

        tables = Tables(setting=lambda name: "first", extra=[Settings()])
        tables.open("settings:1", "p")
        tables.renew(lambda name: "second")
        tables.open("settings:2", "p")
        tables.undo()
        tables.open("settings:3", "p")
        self.assertEqual(seen, ["first", "second", "first"])

    def test_changed_settings(self) -> None:
        """A table that has asked for a parameter is opened anew when that is another one."""
        tables = Tables(setting=lambda name: "a=1")
        table = tables.open("environ:x", "p")
        tables.renew(lambda name: "a=2")
        self.assertEqual((table.lookup(b"a"), tables.open("environ:x", "p").lookup(b"a")), (b"1", b"2"))
        tables.keep()
        tables.renew(lambda name: "a=2")
        self.assertEqual(tables.open("environ:x", "p").lookup(b"a"), b"2")

    def test_changes_while_it_is_read(self) -> None:
        """A file that changes while it is read is read again."""
        changes = iter(["two"])

        def interrupt() -> None:
            for content in changes:
                self.file(content, self.path)
                break

        self.pages.interrupt = interrupt
        self.assertEqual(self.get().lookup(b"x"), b"two")
        self.assertEqual(self.tables.changed(), [])
        self.assertEqual([page.open for page in self.pages.opened], [False, True])

    def test_never_the_same(self) -> None:
        """One that changes all the time is taken as it is, and counts as changed."""
        self.pages.interrupt = lambda: self.file(f"at {self.turn}", self.path) and None
        table = self.get()
        self.assertEqual(table.lookup(b"x"), b"at 2")
        self.assertEqual(self.tables.changed(), [str(self.path)])

    def test_parts(self) -> None:
        """A table of tables is opened anew when one of them is; unchanged parts stay open with it."""
        other = self.file("rest")
        text = f"unionmap:{{page:{self.path} page:{other}}}"
        union = self.get(text)
        self.assertEqual(list(union.sources), [str(self.path), str(other)])
        self.tables.renew()
        self.assertIs(self.get(text), union)
        self.tables.keep()
        self.assertEqual(union.lookup(b"x"), b"one,rest")
        self.file("two", self.path)
        self.assertEqual(self.tables.changed(), [str(self.path)])
        self.tables.renew()
        new = self.get(text)
        self.assertEqual((union.lookup(b"x"), new.lookup(b"x")), (b"one,rest", b"two,rest"))
        self.tables.keep()
        self.assertEqual([page.open for page in self.pages.opened], [False, True, True])
        self.tables.close()
        self.assertFalse(any(page.open for page in self.pages.opened))

    def test_part_opened_before(self) -> None:
        """A part that changed after it was opened by itself, and before the whole was, is not kept."""
        part = self.get()
        self.file("two", self.path)
        text = f"unionmap:{{page:{self.path}}}"
        self.assertEqual(self.get(text).lookup(b"x"), b"one")
        self.tables.renew()
        self.assertEqual(self.get(text).lookup(b"x"), b"two")
        self.assertIsNot(self.get(), part)

    def test_routes(self) -> None:
        """A table that is also used for routes is another one there, through reloads, too."""
        path = self.file("/(a)/ $1\n/a/ b\n")
        text = f"unionmap:{{regexp:{path}}}"

        def answers() -> list[bytes | None]:
            return [
                self.tables.open(text, parameter).lookup(b"a")
                for parameter in ("canonical_maps", "transport_maps", "virtual_alias_maps")
            ]

        self.assertEqual(answers(), [b"a", b"b", b"a"])
        tables = [self.tables.open(text, parameter) for parameter in ("relocated_maps", "transport_maps")]
        self.tables.renew()
        self.assertEqual(answers(), [b"a", b"b", b"a"])
        self.tables.keep()
        self.assertIs(self.tables.open(text, "canonical_maps"), tables[0])
        self.assertIs(self.tables.open(text, "sender_dependent_relayhost_maps"), tables[1])
        self.file("/(a)/ x$1\n/a/ xb\n", path)
        self.tables.renew()
        self.assertEqual(answers(), [b"xa", b"xb", b"xa"])
        self.tables.undo()
        self.assertEqual(answers(), [b"a", b"b", b"a"])

    def test_in_use(self) -> None:
        """
        Who has a table that the new generation does not have may use it for some time, as long as a message
        may be under way; then it is closed.
        """
        clock = Clock()
        tables = Tables(reactor=clock, extra=[self.pages], setting=lambda _: "30s")
        table = tables.open(f"page:{self.path}", "p")
        other = tables.open(f"page:{self.file('other')}", "p")
        self.file("two", self.path)
        tables.renew()
        new = tables.open(f"page:{self.path}", "p")
        tables.keep()
        clock.advance(29)
        self.assertEqual((table.lookup(b"x"), other.lookup(b"x")), (b"one", b"other"))
        clock.advance(1)
        self.assertEqual([page.open for page in self.pages.opened], [False, False, True])
        self.assertEqual(new.lookup(b"x"), b"two")
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_in_use_again(self) -> None:
        """
        A table that is asked for again before it is closed is the same one, and stays.
        """
        clock = Clock()
        tables = Tables(reactor=clock, extra=[self.pages])
        table = tables.open(f"page:{self.path}", "p")
        for refused in (True, False):
            tables.renew()
            tables.keep()
            clock.advance(1)
            tables.renew()
            self.assertIs(tables.open(f"page:{self.path}", "p"), table)
            (tables.undo if refused else tables.keep)()
        clock.advance(100_000)
        self.assertEqual((table.lookup(b"x"), clock.getDelayedCalls()), (b"one", []))

    def test_many_in_use(self) -> None:
        """
        However often files change, no more than some tables wait for their end; and none when all ends.
        """
        clock = Clock()
        tables = Tables(reactor=clock, extra=[self.pages])
        for turn in range(RETIRED + 50):
            self.file(f"turn {turn}", self.path)
            tables.renew()
            tables.open(f"page:{self.path}", "p")
            tables.keep()
        self.assertEqual(sum(page.open for page in self.pages.opened), RETIRED + 1)
        tables.close()
        self.assertEqual(sum(page.open for page in self.pages.opened), 0)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_lists_are_kept(self) -> None:
        """
        The files of lists are read once in a generation, and not again by who goes back to it.
        """
        opened = self.tables.open
        self.assertTrue(DomainMatchList([str(self.path)], "p", open_table=opened).matches("one"))
        self.tables.renew()
        self.path.unlink()
        self.assertRaises(ConfigError, DomainMatchList, [str(self.path)], "p", open_table=opened)
        self.tables.undo()
        self.assertTrue(DomainMatchList([str(self.path)], "p", open_table=opened).matches("one"))
        self.assertEqual(self.tables.changed(), [str(self.path)])

    def test_files_of_lists(self) -> None:
        """Files that lists read are noticed, too, for as long as a list names them."""
        inner = self.file("b.test\n")
        outer = self.file(f"a.test {inner}\n")
        domains = DomainMatchList([str(outer)], "relay_domains", open_table=self.tables.open)
        self.assertTrue(domains.matches("b.test"))
        self.assertEqual(self.tables.changed(), [])
        self.file("c.test\n", inner)
        self.assertEqual(self.tables.changed(), [str(inner)])
        self.tables.renew()
        DomainMatchList([str(outer)], "relay_domains", open_table=self.tables.open)
        self.assertEqual(self.tables.changed(), [])
        self.tables.undo()
        self.assertEqual(self.tables.changed(), [str(inner)])
        self.tables.renew()
        self.tables.keep()
        self.assertEqual(self.tables.changed(), [])

    def test_builtin_kinds(self) -> None:
        """Each kind that is a file is noticed."""
        for kind, content in (
            ("texthash", "a b\n"),
            ("regexp", "/a/ b\n"),
            ("pcre", "/a/ b\n"),
            ("cidr", "1.1.1.1 b\n"),
        ):
            path = self.file(content)
            tables = Tables()
            tables.open(f"pipemap:{{{kind}:{path}}}", "p")
            self.assertEqual(tables.changed(), [], kind)
            path.write_text(content * 2)
            self.assertEqual(tables.changed(), [str(path)], kind)


class ReadAheadTests(Case):
    """L{Tables.read_ahead}."""

    def setUp(self) -> None:
        super().setUp()
        # What is to be called in threads.
        self.calls: list[Callable[[], None]] = []
        self.tables = Tables(in_thread=self.in_thread, extra=())
        self.path = self.file("key first\nkey again\n")
        self.table = self.open()

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """
        Keep a call until L{work}.
        """
        result: Deferred[Any] = Deferred()
        self.calls.append(lambda: result.callback(None))
        return result.addCallback(lambda _: function(*arguments))

    def work(self) -> int:
        """
        Do what the threads were given.

        @return: how often a table was read: each time it warns of its second line.
        """
        calls, self.calls = self.calls, []
        with capturedLogs() as events:
            for call in calls:
                call()
        return self.warnings(events)

    def warnings(self, events: list[Any]) -> int:
        """
        @return: how many warnings of duplicate entries were logged.
        """
        return sum("duplicate entry" in formatEvent(event) for event in events)

    def open(self) -> ILookupTable:
        """
        @return: the table.
        """
        return self.tables.open(f"texthash:{self.path}", "some_maps")

    def reload(self) -> int:
        """
        @return: how often the table was read when a new generation has asked for it.
        """
        with capturedLogs() as events:
            self.tables.renew()
            self.table = self.open()
            self.tables.keep()
        return self.warnings(events)

    def test_changed(self) -> None:
        """The new generation finds it read; until then the old one is in use."""
        self.file("key second\nkey again\n", self.path)
        done = self.tables.read_ahead()
        self.assertNoResult(done)
        self.assertEqual(self.work(), 1)
        self.successResultOf(done)
        self.assertEqual(self.table.lookup(b"key"), b"first")
        self.assertEqual(self.tables.changed(), [str(self.path)])
        self.assertEqual(self.reload(), 0)
        self.assertEqual(self.table.lookup(b"key"), b"second")
        self.assertEqual(self.tables.changed(), [])
        self.assertEqual(self.reload(), 0)

    def test_nothing_changed(self) -> None:
        """Nothing is read."""
        self.successResultOf(self.tables.read_ahead())
        self.assertEqual(self.calls, [])

    def test_inner(self) -> None:
        """A table in another one is read ahead, too."""
        text = f"unionmap:{{texthash:{self.path}}}"
        self.tables.open(text, "some_maps")
        self.file("key second\nkey again\n", self.path)
        self.tables.read_ahead()
        self.assertEqual(self.work(), 1)
        self.tables.renew()
        self.assertEqual(self.tables.open(text, "some_maps").lookup(b"key"), b"second")

    def test_changed_again(self) -> None:
        """It changes after it was read: it is read again."""
        self.file("key second\nkey again\n", self.path)
        self.tables.read_ahead()
        self.work()
        self.file("key third\nkey again\n", self.path)
        self.assertEqual(self.reload(), 1)
        self.assertEqual(self.table.lookup(b"key"), b"third")

    def test_broken(self) -> None:
        """What cannot be read is told to who opens it, and not before."""
        self.path.unlink()
        done = self.tables.read_ahead()
        self.assertEqual(self.work(), 0)
        self.successResultOf(done)
        self.tables.renew()
        self.assertRaises(ConfigError, self.open)
        self.tables.undo()
        self.assertEqual(self.open().lookup(b"key"), b"first")

    def test_undo(self) -> None:
        """What was read ahead for a reload that is refused is forgotten, and read again by the next one."""
        self.file("key second\nkey again\n", self.path)
        for _ in range(2):
            self.tables.read_ahead()
            self.assertEqual(self.work(), 1)
            self.tables.renew()
            self.assertEqual(self.open().lookup(b"key"), b"second")
            self.tables.undo()
            self.assertEqual(self.open().lookup(b"key"), b"first")

    def test_no_longer_asked_for(self) -> None:
        """What nobody asks for in the end is forgotten."""
        self.file("key second\nkey again\n", self.path)
        self.tables.read_ahead()
        self.work()
        self.tables.renew()
        self.tables.keep()
        self.assertEqual(self.reload(), 1)
