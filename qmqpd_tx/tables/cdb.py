"""
C{cdb:/path}: the constant database C{/path.cdb}.

Takes a file as Postfix's postmap or L{write_cdb} makes it; gives a table that reads it through a memory map.
A new version of the file is a new file that replaces it, so that whoever reads the old one goes on with that;
the keeper opens the new one at a reload. The format (U{https://cr.yp.to/cdb/cdb.txt}) is 256 hash tables of
pairs of numbers: this module is shorter than what it takes to depend on one of the libraries, of which none
is looked after. Every offset is checked: a damaged file gives a L{TableError}, and never a loop. Answers to
Postfix's dict_cdb (CDB_README).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.building import Draft, DraftWriter, Replacement, nothing, written
from qmqpd_tx.tables.indexed import Ends, IndexedTable, absolute, open_file
from qmqpd_tx.tables.interface import (
    ILookupTable,
    ILookupTableType,
    ITableBuilder,
    ITableWriter,
    TableContext,
)

HEADER = 2048
"""Bytes of the table of hash tables: a file has at least these."""

LARGEST = 2**32 - 1
"""Offsets have four bytes."""

_PAIR = struct.Struct("<II")


def cdb_hash(key: bytes) -> int:
    """
    @return: the hash of the format.
    """
    value = 5381
    for byte in key:
        value = ((value << 5) + value ^ byte) & 0xFFFFFFFF
    return value


class CdbReader:
    """
    Reads the bytes of a constant database.

    @param data: the whole file.
    @param path: its name, for messages.
    """

    def __init__(self, data: bytes | mmap.mmap, path: str) -> None:
        self._data = data
        self._size = len(data)
        self._path = path

    def get(self, key: bytes) -> bytes | None:
        """
        @return: the first value of a key.
        @raise TableError: the file is damaged.
        """
        wanted = cdb_hash(key)
        table, slots = self._pair(wanted % 256 * 8)
        for step in range(slots):
            found, position = self._pair(table + ((wanted >> 8) + step) % slots * 8)
            if not position:
                return None
            if found == wanted:
                key_size, value_size = self._pair(position)
                if key_size == len(key) and self._bytes(position + 8, key_size) == key:
                    return self._bytes(position + 8 + key_size, value_size)
        return None

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        position = HEADER
        end = min((self._pair(slot * 8)[0] for slot in range(256)), default=HEADER)
        while position < end:
            key_size, value_size = self._pair(position)
            position += 8
            yield self._bytes(position, key_size), self._bytes(position + key_size, value_size)
            position += key_size + value_size

    def _pair(self, position: int) -> tuple[int, int]:
        if position + 8 > self._size:
            raise self._damaged(position)
        first, second = _PAIR.unpack_from(self._data, position)
        return first, second

    def _bytes(self, position: int, size: int) -> bytes:
        if position + size > self._size:
            raise self._damaged(position)
        return self._data[position : position + size]

    def _damaged(self, position: int) -> TableError:
        return TableError(f"{self._path}: damaged at byte {position}; build it again")


def write_cdb(stream: BinaryIO, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """
    Write a constant database.

    @param stream: an empty file.
    @raise ValueError: it would be larger than the format can be.
    """
    slots: list[list[tuple[int, int]]] = [[] for _ in range(256)]
    stream.write(bytes(HEADER))
    position = HEADER
    for key, value in entries:
        value_hash = cdb_hash(key)
        slots[value_hash % 256].append((value_hash, position))
        stream.write(_PAIR.pack(len(key), len(value)) + key + value)
        position += 8 + len(key) + len(value)
        if position > LARGEST:
            raise ValueError("a constant database cannot be larger than 4 GB; use lmdb")
    header = []
    for pairs in slots:
        size = 2 * len(pairs)
        header.append(_PAIR.pack(position, size))
        table = [(0, 0)] * size
        for value_hash, place in pairs:
            slot = (value_hash >> 8) % size
            while table[slot][1]:
                slot = (slot + 1) % size
            table[slot] = (value_hash, place)
        stream.write(b"".join(_PAIR.pack(*pair) for pair in table))
        position += 8 * size
    if position > LARGEST:
        raise ValueError("a constant database cannot be larger than 4 GB; use lmdb")
    stream.seek(0)
    stream.write(b"".join(header))


class CdbTable(IndexedTable):
    """
    An open C{cdb:} table.

    @param name: C{type:name}.
    @param path: the C{.cdb} file.
    @param data: its map.
    """

    def __init__(self, name: str, path: str, data: mmap.mmap) -> None:
        super().__init__(name, [path])
        self._path = path
        self._data = data
        self._reader = CdbReader(data, path)

    def get(self, key: bytes) -> bytes | None:
        if self._data.closed:
            raise TableError(f"{self.name}: is closed")
        return self._reader.get(key)

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._reader)

    def close(self) -> None:
        self._data.close()


@implementer(ILookupTableType, ITableBuilder)
class CdbType:
    """Opens and builds C{cdb:} tables."""

    type = "cdb"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        table = f"cdb:{name}"
        path = absolute(self.type, name, context.parameter) + ".cdb"
        context.watch(path)
        descriptor = open_file(path, context.parameter, table)
        try:
            if os.fstat(descriptor).st_size < HEADER:
                raise ConfigError(f"{context.parameter}: {path}: is no cdb file; build it again")
            data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{context.parameter}: open database {path}: {error}") from None
        finally:
            os.close(descriptor)
        return CdbTable(table, path, data)

    def label(self, name: str) -> str:
        """See L{ITableBuilder}."""
        return name

    def create(self, name: str, draft: Draft) -> ITableWriter:
        """See L{ITableBuilder}."""
        replacement = Replacement(name + ".cdb", draft)
        ends = Ends.NOTHING if draft.ends is Ends.EITHER else draft.ends
        return DraftWriter(nothing, written(replacement, write_cdb, name + ".cdb"), replacement.abort, ends)

    def edit(self, name: str, draft: Draft, make: bool = False) -> ITableWriter:
        """See L{ITableBuilder}."""
        raise ConfigError(f"cdb:{name}: a cdb file cannot be changed, only built anew: leave -i and -d out")
