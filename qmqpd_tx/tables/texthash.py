"""
C{texthash:/file/name}: a text file in postmap(1) form, read whole.

Takes a file name, gives a table in memory: C{key}, white space, C{value} on each logical line. A
line that starts with white space continues the one above, even across comments and empty lines. Keys
are folded; white space within double quotes or after a backslash belongs to the key, and the quotes too
(an address with a quoted local part is its own key). The first of duplicate entries wins. As in Postfix, a
line that makes no sense is left out with a warning that names file and line, so that one bad line does not
stop the mail; a file that cannot be read is a L{ConfigError}. The file is read again on reload.
Answers to Postfix's texthash (DATABASE_README).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, ISequenceTable, TableContext
from qmqpd_tx.tables.words import fold, logical_lines, read_file

log = Logger(namespace="qmqpd_tx.tables")

ENTRY = re.compile(rb'((?:[^"\s\\]++|\\(?:.|\Z)|"[^"\\]*+(?:\\.[^"\\]*+)*")+)(?:\s+(.*))?', re.DOTALL)
"""A logical line: a key, and a value if there is one. It matches no line whose quotes are unbalanced."""


@implementer(ILookupTable)
class DictTable:
    """
    A table that is a dictionary in memory.

    @param name: C{type:name}.
    @param entries: values by folded key.
    @param sources: the files that it was read from.
    """

    __slots__ = ("_entries", "name", "sources")
    fixed_keys = True
    immediate = True
    stable = True

    def __init__(self, name: str, entries: dict[bytes, bytes], sources: Sequence[str] = ()) -> None:
        self.name = name
        self.sources = sources
        self._entries = entries

    def lookup(self, key: bytes) -> bytes | None:
        return self._entries.get(fold(key))

    def close(self) -> None:
        """See L{ILookupTable}."""


@implementer(ISequenceTable)
class ListedTable(DictTable):
    """
    A dictionary that can be listed.
    """

    __slots__ = ()

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._entries.items())


def parse_texthash(data: bytes, path: str) -> dict[bytes, bytes]:
    """
    @param data: the content of the file.
    @param path: its name, for warnings.
    @return: values by folded key.
    """
    entries: dict[bytes, bytes] = {}
    for number, line in logical_lines(data):
        if line[:1].isspace():
            log.warn(
                '{path}, line {line}: logical line must not start with whitespace: "{text}"',
                path=path,
                line=number,
                text=line[:80],
            )
            continue
        match = ENTRY.fullmatch(line)
        if match is None:
            log.warn(
                "{path}, line {line}: unbalanced '\"' in '{text}' -- ignoring this line",
                path=path,
                line=number,
                text=line[:80],
            )
            continue
        key, value = match.groups()
        if not value:
            log.warn(
                "{path}, line {line}: expected format: key whitespace value -- ignoring this line",
                path=path,
                line=number,
            )
            continue
        key = fold(key)
        if key in entries:
            log.warn('{path}, line {line}: duplicate entry: "{key}"', path=path, line=number, key=key)
            continue
        entries[key] = value
    return entries


@implementer(ILookupTableType)
class TextHashType:
    """Opens C{texthash:} tables."""

    type = "texthash"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        parameter = context.parameter
        if not name.startswith("/"):
            raise ConfigError(f"{parameter}: texthash:{name}: the file name must be absolute")
        context.watch(name)
        return ListedTable(f"texthash:{name}", parse_texthash(read_file(name, parameter), name), [name])
