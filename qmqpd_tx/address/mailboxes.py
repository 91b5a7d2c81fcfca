"""
Addresses in text: found, replaced, and nothing else touched. Pure.

Takes the value of a header that holds addresses (C{To:}, C{From:}, ...), or of a table that gives some. Gives
the addresses in internal form, and for a header the value with others in their place, in Postfix's own
layout: one space after each comma, lines of at most L{LINE_LENGTH} broken after commas with a tab; or L{None}
when no address in it changes, so that the header keeps its exact spacing. Bounded: one pass over the value.
Never raises: a value without a sensible reading is left as it came (Postfix guesses). Groups, comments,
quoted strings and obsolete routes are understood (RFC 5322 sections 3.4 and 4.4). Answers to cleanup(8)'s
header address rewriting, watched in a running Postfix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen

LINE_LENGTH = 70
"""The longest line of a rewritten header that holds more than one item; the first one has a byte less."""

_LIST_OF = rb"""(?:\s*+(?:
        (?:"[^"\\]*+"|[^"()<>@,;:\\]++)*<%(address)b>
        |%(address)b
    )?\s*+(?:,|\Z))*"""
_ATOM = rb"[A-Za-z0-9!#$&'*+/=?^_`{|}~-]++"
_LOCAL_PART = rb"%b(?:\.%b)*" % (_ATOM, _ATOM)

CLEAN = re.compile(
    _LIST_OF % {b"address": _LOCAL_PART + rb"@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)*"}, re.VERBOSE
)
"""A list of mailboxes that are complete already: nearly all headers of nearly all mail."""

CLEAN_DOTTED = re.compile(
    _LIST_OF % {b"address": _LOCAL_PART + rb"@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)+"}, re.VERBOSE
)
"""The same where a domain without a dot is not complete (C{append_dot_mydomain})."""

_IN_CLEAN = re.compile(rb'"[^"]*+"|(%b@[A-Za-z0-9.-]++)' % _LOCAL_PART)

_ADDRESS = re.compile(_LOCAL_PART + rb"@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)*")

_TOKENS = re.compile(
    rb"""(?P<space>[ \t\n]+)
    |(?P<quoted>"[^"\\]*+(?:\\.[^"\\]*+)*")
    |(?P<literal>\[[^\[\]\\]*+(?:\\.[^\[\]\\]*+)*\])
    |(?P<special>[()<>@,;:.])
    |(?P<atom>(?:[^ \t\n"()\[\]<>@,;:.\\]++|\\[^\n])+)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(rb"[()]|\\.|[^()\\]+", re.DOTALL)
_UNQUOTE = re.compile(rb"\\(.)", re.DOTALL)

MAXIMAL_TOKENS = 10240
"""The default of C{header_address_token_limit}."""

Quote = Callable[[bytes], bytes]
"""Internal form to external form."""


class Completer(Protocol):
    """Makes addresses complete."""

    def rewrite(self, address: bytes) -> bytes:
        """
        @param address: in internal form; without a domain it may name one in another way (C{site!user}).
        @return: complete, in internal form.
        """

    def complete(self, local: bytes) -> bytes:
        """
        @param local: a local part and nothing else, whatever is in it.
        @return: complete, in internal form.
        """


_Token = tuple[str, bytes]
_Piece = bytes | int
"""Text of a header as it is to stay, or the index of an address."""


class _Unreadable(Exception):
    """The value has no sensible reading."""


@frozen(slots=True)
class AddressList:
    """
    The addresses in one value.

    @ivar addresses: in internal form, in order.
    @ivar alone: for each, whether it is a local part in quotes and nothing else: an C{@} in it does not
        count.
    """

    addresses: list[bytes]
    alone: list[bool]
    _texts: list[bytes]
    _items: list[list[_Piece]]
    _changed: bool

    def complete(self, completer: Completer) -> list[bytes]:
        """
        @return: the addresses, complete.
        """
        return [
            completer.complete(address) if alone else completer.rewrite(address)
            for address, alone in zip(self.addresses, self.alone, strict=True)
        ]

    def render(self, name: bytes, addresses: Sequence[bytes]) -> bytes | None:
        """
        Put others in their place.

        @param name: the header's name, which counts for the length of the first line.
        @param addresses: as many, in external form; the null address is written C{""}.
        @return: the new value with its leading space, without a final newline; L{None} when nothing changes.
        """
        addresses = [address or b'""' for address in addresses]
        if not self._changed and self._texts == addresses:
            return None
        lines = [name + b":"]
        last = len(self._items) - 1
        for number, pieces in enumerate(self._items):
            item = b"".join(addresses[piece] if isinstance(piece, int) else piece for piece in pieces)
            if number < last:
                item += b","
            if number and len(lines[-1]) + 1 + len(item) > LINE_LENGTH - (len(lines) == 1):
                lines.append(b"\t" + item)
            else:
                lines[-1] += b" " + item
        return b"\n".join(lines)[len(name) + 1 :]


class _Reader:
    """One value being read."""

    def __init__(self) -> None:
        self.addresses: list[bytes] = []
        self.alone: list[bool] = []
        self.texts: list[bytes] = []
        self.changed = False

    def address(self, tokens: list[_Token]) -> int:
        """
        @param tokens: the tokens of one address, without space and comments.
        @return: its index.
        """
        if not tokens:
            raise _Unreadable
        internal = b"".join(
            _UNQUOTE.sub(rb"\1", text[1:-1] if kind == "quoted" else text)
            if kind in ("quoted", "atom")
            else text
            for kind, text in tokens
        )
        if b"\n" in internal:
            # Where it may end up after rewriting, a line end would end the header.
            internal = internal.replace(b"\n", b" ")
        self.addresses.append(internal)
        self.alone.append(
            internal != b""
            and all(text != b"@" for _, text in tokens)
            and any(kind == "quoted" or b"\\" in text for kind, text in tokens)
        )
        self.texts.append(b"".join(text for _, text in tokens))
        return len(self.addresses) - 1

    def item(self, tokens: list[_Token]) -> list[_Piece]:
        """
        @param tokens: what stands between two commas, without space.
        @return: the same; empty when there is nothing.
        """
        angle = next((index for index, (_, text) in enumerate(tokens) if text == b"<"), None)
        if angle is None:
            return self._bare(tokens)
        close = next((index for index, (_, text) in enumerate(tokens) if text == b">"), None)
        after = tokens[close + 1 :] if close is not None else []
        if close is None or close < angle or any(kind != "comment" for kind, _ in after):
            raise _Unreadable
        phrase = _join_phrase(tokens[:angle])
        inside = [token for token in tokens[angle + 1 : close] if token[0] != "comment"]
        pieces: list[_Piece] = [phrase + b" <" if phrase else b"<"]
        if inside:
            pieces.append(self._route(inside))
        pieces.append(b">" + b" ".join(text for _, text in after))
        return pieces

    def _route(self, tokens: list[_Token]) -> int:
        if tokens[0][1] == b"@":
            colon = next((index for index, (_, text) in enumerate(tokens) if text == b":"), None)
            if colon is None:
                raise _Unreadable
            self.changed = True
            tokens = tokens[colon + 1 :]
        if any(text in (b"<", b",", b":", b";") for _, text in tokens):
            raise _Unreadable
        return self.address(tokens)

    def _bare(self, tokens: list[_Token]) -> list[_Piece]:
        comments = [text for kind, text in tokens if kind == "comment"]
        words = [token for token in tokens if token[0] != "comment"]
        if not words:
            return [b" ".join(comments)] if comments else []
        found: list[list[_Token]] = []
        joined = False
        for token in words:
            joint = token[1] in (b".", b"@") and token[0] == "special"
            if token[1] == b">":
                raise _Unreadable
            if found and (joint or joined):
                found[-1].append(token)
            else:
                found.append([token])
            joined = joint
        if comments and len(found) > 1:
            raise _Unreadable
        pieces: list[_Piece] = []
        for address in found:
            if pieces:
                pieces.append(b", ")
            pieces.append(self.address(address))
        pieces += [b" " + text for text in comments]
        return pieces


def _join_phrase(tokens: list[_Token]) -> bytes:
    joined = bytearray()
    tight = True
    for _, text in tokens:
        if text == b"@":
            raise _Unreadable
        if not tight and text != b".":
            joined += b" "
        joined += text
        tight = text == b"."
    return bytes(joined)


def _tokens(value: bytes, limit: int) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(value) and len(tokens) < limit:
        match = _TOKENS.match(value, position)
        if match is None or match.lastgroup is None:
            raise _Unreadable
        position = match.end()
        if match.lastgroup == "space":
            continue
        if match.group() == b"(":
            start, depth = match.start(), 1
            while depth:
                part = _COMMENT_PART.match(value, position)
                if part is None:
                    raise _Unreadable
                depth += {b"(": 1, b")": -1}.get(part.group(), 0)
                position = part.end()
            tokens.append(("comment", value[start:position].replace(b"\n", b" ")))
        elif match.group() == b")":
            raise _Unreadable
        else:
            tokens.append((match.lastgroup, match.group()))
    return tokens


def is_address(value: bytes) -> bool:
    """
    @return: whether this is one complete address and nothing else, and needs no parsing.
    """
    return _ADDRESS.fullmatch(value) is not None


def addresses_of_clean(value: bytes) -> list[bytes]:
    """
    @param value: one that L{CLEAN} matches.
    @return: its addresses.
    """
    return [address for address in _IN_CLEAN.findall(value) if address]


def parse_addresses(value: bytes, limit: int = MAXIMAL_TOKENS) -> AddressList | None:
    """
    Find the addresses of a header.

    @param value: what follows the colon, without the final newline; may be folded.
    @param limit: the number of words, comments and special characters after which nothing counts any more
        (C{header_address_token_limit}).
    @return: L{None} when the value cannot be read.
    """
    reader = _Reader()
    items: list[list[_Piece]] = []
    pending: list[_Token] = []
    group = b""
    angle = False
    closed = False
    try:
        for token in [*_tokens(value, limit), ("end", b"")]:
            kind, text = token
            separator = kind == "special" and text in (b",", b":", b";") and not angle
            if not separator and kind != "end":
                angle = text == b"<" or (angle and text != b">") if kind == "special" else angle
                pending.append(token)
                continue
            if text == b":":
                if group or closed:
                    raise _Unreadable
                group = _join_phrase(pending) + b":"
            elif kind != "end" or pending or (items and not closed):
                item = reader.item(pending)
                if closed and (item or text != b","):
                    raise _Unreadable
                if group:
                    item.insert(0, group + b" ")
                    group = b""
                if text == b";":
                    item.append(b";")
                if not closed:
                    items.append(item)
                closed = text == b";"
            pending = []
    except _Unreadable:
        return None
    if angle:
        return None
    return AddressList(reader.addresses, reader.alone, reader.texts, items, reader.changed)


def complete_addresses(
    name: bytes, value: bytes, completer: Completer, quote: Quote, limit: int = MAXIMAL_TOKENS
) -> bytes | None:
    """
    Make the addresses of a header complete.

    @param name: the header's name.
    @param value: what follows the colon, without the final newline; may be folded.
    @param completer: makes them complete.
    @param quote: writes them.
    @param limit: as in L{parse_addresses}.
    @return: L{None} when nothing changes or the value cannot be read; else the new value with its leading
        space.
    """
    parsed = parse_addresses(value, limit)
    if parsed is None:
        return None
    return parsed.render(name, [quote(address) for address in parsed.complete(completer)])
