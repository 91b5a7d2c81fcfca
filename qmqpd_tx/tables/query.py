"""
The C{%} expansions of SQL tables, the same for all kinds of them.

Takes a template (C{query}, C{result_format}), a key and a way of quoting; gives the text, or L{None} where
the key or the value does not have what the template asks for: then the lookup is not made, or the value is
left out. Pure but for files that C{domain} names, which are read at once. A template that makes no sense is a
L{ConfigError}. Answers to Postfix's db_common library (sqlite_table(5), pgsql_table(5)).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.interface import ILookupTable
from qmqpd_tx.tables.wording import printable
from qmqpd_tx.tables.words import encode, expand_files, fold, split_words

log = Logger(namespace="qmqpd_tx.tables")

_PIECE = re.compile(rb"([^%]*)(?:%(.?))?", re.DOTALL)
_LETTERS = b"sudSUD123456789"


def _as_is(value: bytes) -> bytes:
    return value


@frozen(slots=True)
class Parts:
    """
    What a template can ask for in a key or a value.

    @ivar whole: all of it.
    @ivar user: what is before the last C{@}; all of it if there is none.
    @ivar domain: what is behind, or nothing.
    """

    whole: bytes
    user: bytes
    domain: bytes

    @classmethod
    def of(cls, text: bytes) -> Parts:
        """
        @return: the parts of an address, or of something else.
        """
        user, at, domain = text.rpartition(b"@")
        return cls(text, user, domain) if at else cls(text, text, b"")

    def get(self, letter: int) -> bytes:
        """
        @param letter: C{s}, C{u}, C{d}, or a digit: so many labels from the end of the domain.
        @return: the part; empty: it does not have that.
        """
        match letter:
            case 0x73:  # s
                return self.whole
            case 0x75:  # u
                return self.user
            case 0x64:  # d
                return self.domain
        labels = [label for label in self.domain.split(b".") if label]
        number = letter - 0x30
        return labels[-number] if number <= len(labels) else b""


class Template:
    """
    A text with C{%} expansions.

    @param text: C{%%}, C{%s}, C{%u}, C{%d}, C{%S}, C{%U}, C{%D} and C{%1} to C{%9} are expanded.
    @param where: the file or parameter that it stands in.
    @param what: C{query} or C{result}, for messages.
    @raise ConfigError: there is another C{%}.
    """

    __slots__ = ("_pieces",)

    def __init__(self, text: str, where: str, what: str) -> None:
        self._pieces: list[tuple[bytes, int]] = []
        for literal, letter in _PIECE.findall(encode(text)):
            self._pieces.append((literal, letter[0] if letter else 0))
        spoiled = text.replace("%%", "").endswith("%")
        if spoiled or any(letter and letter not in _LETTERS + b"%" for _, letter in self._pieces):
            raise ConfigError(
                f"{where}: Invalid {what} template: {text}; "
                "use %s, %u, %d, %S, %U, %D, %1 to %9, and %% for a percent sign"
            )

    def suits(self, key: Parts) -> bool:
        """
        @return: whether the key has what a result template asks of it.
        """
        return all(key.get(_lower(letter)) for _, letter in self._pieces if letter and letter not in b"sud%")

    def expand(self, value: Parts, key: Parts, quote: Callable[[bytes], bytes] = _as_is) -> bytes | None:
        """
        @param value: what C{%s}, C{%u} and C{%d} are taken from.
        @param key: what the others are taken from.
        @param quote: what is done to each of them.
        @return: the text, or L{None} when something that it asks for is not there.
        """
        made = []
        for literal, letter in self._pieces:
            made.append(literal)
            if letter == 0x25:
                made.append(b"%")
            elif letter:
                part = value.get(letter) if letter in b"sud" else key.get(_lower(letter))
                if not part:
                    return None
                made.append(quote(part))
        return b"".join(made)


def _lower(letter: int) -> int:
    return letter | 0x20


class DomainFilter:
    """
    The C{domain} setting: whose keys are looked up at all.

    @param text: domains, C{/file/name}, C{type:table}, with C{!} in front of what is left out.
    @param where: the file that it stands in, for messages.
    @param open_table: opens C{type:name}.
    """

    __slots__ = ("_patterns",)

    def __init__(self, text: str, where: str, open_table: Callable[[str], ILookupTable]) -> None:
        self._patterns: list[tuple[bool, bytes | ILookupTable]] = []
        for include, pattern, _ in expand_files(split_words(text), f"{where}: domain"):
            one = open_table(pattern) if ":" in pattern else fold(encode(pattern))
            self._patterns.append((include, one))

    async def takes(self, key: Parts) -> bool:
        """
        @return: whether the key is to be looked up. Does not suspend when no table has to be waited for.
        """
        if not self._patterns:
            return True
        if not key.user or b"@" not in key.whole:
            return False
        wanted = fold(key.domain)
        for include, pattern in self._patterns:
            if isinstance(pattern, bytes):
                found = pattern == wanted
            else:
                value = pattern.lookup(wanted)
                found = (await value if isinstance(value, Deferred) else value) is not None
            if found:
                return include
        return False


def join_values(
    rows: Iterable[Sequence[bytes | None]], key: Parts, result: Template, limit: int, table: str
) -> bytes | None:
    """
    @param rows: what the database has found.
    @param result: how each value is written.
    @param limit: how many values there may be; 0: any number.
    @param table: C{type:name}, for messages.
    @return: all values, with commas, or L{None}.
    @raise TableError: there are more.
    """
    found = []
    for row in rows:
        for value in row:
            if value == b"":
                log.warn(
                    'table "{table}": empty lookup result for: "{key}" -- ignored',
                    table=table,
                    key=printable(key.whole),
                )
            if value:
                text = result.expand(Parts.of(value), key)
                if text:
                    found.append(text)
    if limit and len(found) > limit:
        raise TableError(f"{table}: more than expansion_limit = {limit} values for one key")
    return b",".join(found) or None
