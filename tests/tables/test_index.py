"""
Tables in indexed files: C{hash}, C{btree}, C{lmdb}, C{cdb}.
"""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.building import Draft
from qmqpd_tx.tables.cdb import CdbReader, write_cdb
from qmqpd_tx.tables.interface import ILookupTable, ISequenceTable, ITableBuilder, ITableWriter
from qmqpd_tx.tables.keeper import Tables
from qmqpd_tx.tables.registry import find_kind
from tests.libraries import missing

skip = missing("berkeleydb")


SETTINGS = {
    "berkeley_db_create_buffer_size": "1000000",
    "berkeley_db_read_buffer_size": "100000",
    "lmdb_map_size": "65536",
    "table_lock_timeout": "0s",
}
SUFFIXES = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}

ENTRIES = {b"foo": b"bar", b'"a b"@x.test': b"two words", "\u00e9".encode(): b"v"}


def builder(kind: str) -> ITableBuilder:
    """
    @return: what builds files of a kind.
    """
    found = find_kind(kind)
    assert ITableBuilder.providedBy(found)
    return found  # type: ignore[return-value]


def build(kind: str, name: str, entries: Mapping[bytes, bytes], edit: bool = False) -> None:
    """
    Make a file, or add to one.
    """
    draft = Draft(SETTINGS.__getitem__, timeout=0.0)
    writer = builder(kind).edit(name, draft) if edit else builder(kind).create(name, draft)
    verifyObject(ITableWriter, writer)
    for key, value in entries.items():
        writer.put(key, value)
    writer.commit()


class Case(SynchronousTestCase):
    """A folder and an opener."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.name = str(folder / "t")
        self.tables = Tables(setting=SETTINGS.__getitem__)
        self.addCleanup(self.tables.close)

    def path(self, kind: str) -> Path:
        """
        @return: the file.
        """
        return Path(self.name + SUFFIXES[kind])


class EachTests(Case):
    """What holds for all kinds."""

    def test_lookup(self) -> None:
        """Keys are folded; what is not there is L{None}; empty and overlong keys are not there."""
        for kind in SUFFIXES:
            build(kind, self.name, ENTRIES)
            table = self.tables.open(f"{kind}:{self.name}", "p")
            verifyObject(ILookupTable, table)
            self.assertEqual((table.fixed_keys, table.immediate), (True, True))
            for key, value in (
                (b"foo", b"bar"),
                (b"FoO", b"bar"),
                (b'"A b"@X.test', b"two words"),
                ("\u00c9".encode(), b"v"),
                (b"fo", None),
                (b"foo\0", None),
                (b"", None),
                (b"x" * 5000, None),
            ):
                self.assertEqual(table.lookup(key), value, (kind, key))
            assert ISequenceTable.providedBy(table)
            self.assertEqual(dict(table.entries()), ENTRIES, kind)
            table.close()
            table.close()
            self.assertRaises(TableError, table.lookup, b"foo")
            self.tables.renew()
            self.tables.keep()
            self.path(kind).unlink()

    def test_missing(self) -> None:
        """The error names the file and how to make it."""
        for kind, suffix in SUFFIXES.items():
            error = self.assertRaises(ConfigError, self.tables.open, f"{kind}:/no/such", "transport_maps")
            self.assertIn(f"transport_maps: open database /no/such{suffix}: No such file", str(error))
            self.assertIn(f'"postmap {kind}:/no/such"', str(error))
            error = self.assertRaises(ConfigError, self.tables.open, f"{kind}:such", "p")
            self.assertIn("absolute", str(error))

    def test_garbage(self) -> None:
        """A file of another format is refused with its name."""
        for kind in SUFFIXES:
            self.path(kind).write_bytes(b"garbage" * 100)
            error = self.assertRaises(ConfigError, self.tables.open, f"{kind}:{self.name}", "p")
            self.assertIn(str(self.path(kind)), str(error))

    def test_aborted(self) -> None:
        """What was not committed is nowhere, and no file is left."""
        for kind in SUFFIXES:
            build(kind, self.name, ENTRIES)
            before = sorted(os.listdir(self.path(kind).parent))
            writer = builder(kind).create(self.name, Draft(SETTINGS.__getitem__))
            writer.put(b"foo", b"other")
            writer.abort()
            self.assertEqual(sorted(os.listdir(self.path(kind).parent)), before)
            self.assertEqual(self.tables.open(f"{kind}:{self.name}", "p").lookup(b"foo"), b"bar", kind)

    def test_edited(self) -> None:
        """An edit adds, replaces and deletes."""
        for kind in ("hash", "btree", "lmdb"):
            build(kind, self.name, ENTRIES)
            writer = builder(kind).edit(self.name, Draft(SETTINGS.__getitem__))
            self.assertTrue(writer.has(b"foo"))
            self.assertTrue(writer.delete(b"foo"))
            self.assertFalse(writer.has(b"foo"))
            self.assertFalse(writer.delete(b"nothing"))
            self.assertFalse(writer.delete(b""))
            writer.put(b"new", b"1")
            writer.put(b"new", b"2")
            writer.commit()
            table = self.tables.open(f"{kind}:{self.name}", "p")
            assert ISequenceTable.providedBy(table)
            expected = {**ENTRIES, b"new": b"2"}
            del expected[b"foo"]
            self.assertEqual(dict(table.entries()), expected, kind)


class BerkeleyTests(Case):
    """C{hash:} and C{btree:}."""

    def test_rewritten_in_place(self) -> None:
        """A table goes on with what it was opened with, whatever is written into the file; then it is new."""
        build("hash", self.name, ENTRIES)
        table = self.tables.open(f"hash:{self.name}", "p")
        with open(self.path("hash"), "r+b") as stream:
            stream.write(b"x" * 20000)
        self.assertEqual(table.lookup(b"foo"), b"bar")
        build("hash", self.name, {b"foo": b"new"})
        self.assertEqual(self.tables.changed(), [str(self.path("hash"))])
        self.tables.renew()
        self.assertEqual(self.tables.open(f"hash:{self.name}", "p").lookup(b"foo"), b"new")

    def test_locked(self) -> None:
        """A file that somebody writes is not opened, and not changed."""
        build("hash", self.name, ENTRIES)
        with open(self.path("hash"), "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            error = self.assertRaises(ConfigError, self.tables.open, f"hash:{self.name}", "p")
            self.assertIn("is being updated", str(error))
            self.assertRaises(ConfigError, build, "hash", self.name, ENTRIES, edit=True)
        self.assertEqual(self.tables.open(f"hash:{self.name}", "p").lookup(b"foo"), b"bar")

    def test_other_kind(self) -> None:
        """A btree file is no hash file."""
        build("btree", self.name, ENTRIES)
        error = self.assertRaises(ConfigError, self.tables.open, f"hash:{self.name}", "p")
        self.assertIn("is not a hash file", str(error))


class LmdbTests(Case):
    """C{lmdb:}."""

    def test_current(self) -> None:
        """A table gives what is in the file now, also when that was replaced, and fails without a file."""
        build("lmdb", self.name, ENTRIES)
        table = self.tables.open(f"lmdb:{self.name}", "p")
        self.assertFalse(table.stable)
        self.assertEqual(table.lookup(b"foo"), b"bar")
        other = self.name + "2"
        build("lmdb", other, {b"foo": b"other"})
        os.rename(other + ".lmdb", self.path("lmdb"))
        self.assertEqual(table.lookup(b"foo"), b"other")
        self.path("lmdb").unlink()
        self.assertRaises(TableError, table.lookup, b"foo")
        self.assertEqual(self.tables.changed(), [])

    def test_opened_twice(self) -> None:
        """
        A file can be used for routes and for other things, under another name, and again with other settings,
        although LMDB can have it open only once; each goes on when another one is closed.
        """
        build("lmdb", self.name, ENTRIES)
        text = f"lmdb:{self.name}"
        timeouts = ["1s"]
        tables = Tables(setting=lambda name: timeouts[-1] if name == "table_lock_timeout" else SETTINGS[name])
        found = [tables.open(text, "transport_maps"), tables.open(text, "canonical_maps")]
        folder, _, base = self.name.rpartition("/")
        found.append(tables.open(f"lmdb:{folder}/./{base}", "canonical_maps"))
        timeouts.append("2s")
        tables.renew()
        found.append(tables.open(text, "canonical_maps"))
        for table in found:
            self.assertEqual(table.lookup(b"foo"), b"bar")
        tables.keep()
        self.assertRaises(TableError, found[0].lookup, b"foo")
        self.assertEqual(found[-1].lookup(b"foo"), b"bar")
        other = self.name + "2"
        build("lmdb", other, {b"foo": b"other"})
        os.rename(other + ".lmdb", self.path("lmdb"))
        self.assertEqual(found[-1].lookup(b"foo"), b"other")
        tables.close()

    def test_grown(self) -> None:
        """A file that is full is made larger."""
        many = {b"key%d" % number: b"v" * 200 for number in range(2000)}
        build("lmdb", self.name, many)
        table = self.tables.open(f"lmdb:{self.name}", "p")
        self.assertEqual(table.lookup(b"key1999"), b"v" * 200)
        self.assertGreater(self.path("lmdb").stat().st_size, 65536)

    def test_long_key(self) -> None:
        """A key that LMDB cannot have is an error that names the file, and changes nothing."""
        build("lmdb", self.name, ENTRIES)
        error = self.assertRaises(ConfigError, build, "lmdb", self.name, {b"a": b"b", b"x" * 600: b"y"})
        self.assertIn(str(self.path("lmdb")), str(error))
        self.assertEqual(self.tables.open(f"lmdb:{self.name}", "p").lookup(b"foo"), b"bar")


class CdbTests(Case):
    """C{cdb:}."""

    @given(st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=20), max_size=50))
    def test_round_trip(self, entries: dict[bytes, bytes]) -> None:
        """What was written is found, and nothing else."""
        stream = io.BytesIO()
        write_cdb(stream, entries.items())
        reader = CdbReader(stream.getvalue(), "/x")
        self.assertEqual({key: reader.get(key) for key in entries}, entries)
        self.assertEqual(list(reader), list(entries.items()))
        self.assertIsNone(reader.get(b"x" * 21))

    @settings(max_examples=200)
    @given(st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        """Any damage ends in an answer or a L{TableError}, in time."""
        stream = io.BytesIO()
        write_cdb(stream, [(b"key%d" % number, b"value") for number in range(5)])
        content = bytearray(stream.getvalue())
        for _ in range(data.draw(st.integers(1, 10))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        reader = CdbReader(bytes(content[: data.draw(st.integers(2048, len(content)))]), "/x")
        for key in (b"key1", b"key4", b"nothing"):
            try:
                reader.get(key)
            except TableError as error:
                self.assertIn("/x: damaged", str(error))

    def test_replaced(self) -> None:
        """A table goes on with the file that it has open."""
        build("cdb", self.name, ENTRIES)
        table = self.tables.open(f"cdb:{self.name}", "p")
        build("cdb", self.name, {b"foo": b"new"})
        self.assertEqual(table.lookup(b"foo"), b"bar")
        self.tables.renew()
        self.assertEqual(self.tables.open(f"cdb:{self.name}", "p").lookup(b"foo"), b"new")

    def test_unchangeable(self) -> None:
        """It cannot be edited, and says so."""
        build("cdb", self.name, ENTRIES)
        error = self.assertRaises(ConfigError, build, "cdb", self.name, {}, edit=True)
        self.assertIn("leave -i and -d out", str(error))
