"""
C{texthash:/file/name}: a text file in postmap(1) form, read whole.

Takes a file name, gives a table in memory: C{key}, white space, C{value} on each logical line. A
line that starts with white space continues the one above, even across comments and empty lines. Keys
are folded; white space within double quotes or after a backslash belongs to the key, and the quotes too
(an address with a quoted local part is its own key). The first of duplicate entries wins. As in Postfix, a
line that makes no sense is left out with a warning that names file and line, so that one bad line does not
stop the mail, and with C{smtputf8_enable} so is one that is not UTF-8. A file that cannot be read is a
L{ConfigError}. The file is read again on reload.
Answers to Postfix's texthash (DATABASE_README).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, ISequenceTable, TableContext
from qmqpd_tx.tables.wording import printable
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


def read_lines(
    data: bytes, path: str, utf8: bool, warn: Callable[[str], None], ignoring: str = ""
) -> Iterator[tuple[int, bytes, bytes]]:
    """
    Read a text in postmap(1) form.

    @param data: the content of the file.
    @param path: its name, for warnings.
    @param utf8: whether lines must be valid UTF-8.
    @param warn: takes a warning.
    @param ignoring: what is added where a line has no value.
    @return: line number, key and value of each entry, not folded.
    """
    for number, whole in logical_lines(data):
        where = f"{path}, line {number}"
        # What comes after a NUL is not there for Postfix, and nothing good.
        line = whole.partition(b"\0")[0].rstrip()
        if utf8 and not _is_utf8(line):
            warn(f'{where}: non-UTF-8 input "{printable(line)}" -- ignoring this line')
            continue
        if line[:1].isspace():
            start = printable(line[:30]) + "..." * (len(line) > 30)
            warn(f'{path}: logical line must not start with whitespace: "{start}"')
            continue
        match = ENTRY.fullmatch(line)
        if match is None and line:
            warn(f"{where}: unbalanced '\"' in '{printable(line)}' -- ignoring this line")
            continue
        key, value = (b"", b"") if match is None else match.groups()
        if not value:
            warn(f"{where}: expected format: key whitespace value{ignoring}")
            continue
        if key.endswith(b":"):
            warn(f'{where}: record is in "key: value" format; is this an alias file?')
        yield number, key, value


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def parse_texthash(data: bytes, path: str, utf8: bool = True) -> dict[bytes, bytes]:
    """
    @param data: the content of the file.
    @param path: its name, for warnings.
    @param utf8: whether lines must be valid UTF-8.
    @return: values by folded key.
    """
    entries: dict[bytes, bytes] = {}
    for number, written, value in read_lines(data, path, utf8, _warn, " -- ignoring this line"):
        key = fold(written)
        if key in entries:
            _warn(f'{path}, line {number}: duplicate entry: "{printable(written)}"')
            continue
        entries[key] = value
    return entries


def _warn(text: str) -> None:
    log.warn("{text}", text=text)


def _asks_for_utf8(context: TableContext) -> bool:
    try:
        return context.setting("smtputf8_enable").lower() == "yes"
    except ConfigError:
        return True


@implementer(ILookupTableType)
class TextHashType:
    """Opens C{texthash:} tables."""

    type = "texthash"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        parameter = context.parameter
        if not name.startswith("/"):
            raise ConfigError(f"{parameter}: texthash:{name}: the file name must be absolute")
        context.watch(name)
        entries = parse_texthash(read_file(name, parameter), name, _asks_for_utf8(context))
        return ListedTable(f"texthash:{name}", entries, [name])
