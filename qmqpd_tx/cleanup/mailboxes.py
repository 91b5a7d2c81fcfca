"""
Addresses inside a header: made complete, and nothing else touched. Pure.

Takes the value of a header that holds addresses (C{To:}, C{From:}, ...). Gives L{None} when no address
in it changes, so that the header keeps its exact spacing; else the value in Postfix's own layout: one
space after each comma, lines of at most L{LINE_LENGTH} broken after commas with a tab. Bounded: one pass
over the value. Never raises: a value without a sensible reading is left as it came (Postfix guesses).
Answers to cleanup(8)'s header address rewriting, watched in a running Postfix.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LINE_LENGTH = 70
"""The longest line of a rewritten header that holds more than one item."""

_LIST_OF = rb"""(?>\s*+(?:
        (?>(?:"[^"\\]*+"|[^"()<>@,;:\\]++)*+)<%(address)b>
        |%(address)b
    )?\s*+(?:,|\Z))*"""
_LOCAL_PART = rb"[A-Za-z0-9!#$&'*+/=?^_`{|}~.-]++"

CLEAN = re.compile(
    _LIST_OF % {b"address": _LOCAL_PART + rb"@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)*+"}, re.VERBOSE
)
"""A list of mailboxes that are complete already: nearly all headers of nearly all mail."""

CLEAN_DOTTED = re.compile(
    _LIST_OF % {b"address": _LOCAL_PART + rb"@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)++"}, re.VERBOSE
)
"""The same where a domain without a dot is not complete (C{append_dot_mydomain})."""

_TOKENS = re.compile(
    rb"""(?P<space>[ \t\n]+)
    |(?P<quoted>"(?:[^"\\]|\\.)*+")
    |(?P<literal>\[(?:[^\[\]\\]|\\.)*+\])
    |(?P<special>[()<>@,;:.])
    |(?P<atom>(?:[^ \t\n"()\[\]<>@,;:.\\]|\\.)++)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(rb"[()]|\\.|[^()\\]+", re.DOTALL)
_UNQUOTE = re.compile(rb"\\(.)", re.DOTALL)

Rewrite = Callable[[bytes], bytes]
"""Internal form to internal form."""


class _Unreadable(Exception):
    """The value has no sensible reading."""


class _Rewriter:
    """One value being read."""

    def __init__(self, rewrite: Rewrite, quote: Rewrite) -> None:
        self.rewrite = rewrite
        self.quote = quote
        self.changed = False

    def address(self, tokens: list[tuple[str, bytes]]) -> bytes:
        """
        @param tokens: the tokens of one address, without space and comments.
        """
        if not tokens:
            raise _Unreadable
        internal = b"".join(
            _UNQUOTE.sub(rb"\1", text[1:-1] if kind == "quoted" else text)
            if kind in ("quoted", "atom")
            else text
            for kind, text in tokens
        )
        complete = self.quote(self.rewrite(internal))
        if complete != b"".join(text for _, text in tokens):
            self.changed = True
        return complete

    def item(self, tokens: list[tuple[str, bytes]]) -> bytes:
        """
        @param tokens: what stands between two commas, without space.
        @return: the same with its addresses complete; empty when there is none.
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
        address = self._route(inside) if inside else b""
        tail = b" ".join(text for _, text in after)
        return (phrase + b" " if phrase else b"") + b"<" + address + b">" + tail

    def _route(self, tokens: list[tuple[str, bytes]]) -> bytes:
        if tokens[0][1] == b"@":
            colon = next((index for index, (_, text) in enumerate(tokens) if text == b":"), None)
            if colon is None:
                raise _Unreadable
            self.changed = True
            tokens = tokens[colon + 1 :]
        if any(text in (b"<", b",", b":", b";") for _, text in tokens):
            raise _Unreadable
        return self.address(tokens)

    def _bare(self, tokens: list[tuple[str, bytes]]) -> bytes:
        comments = [text for kind, text in tokens if kind == "comment"]
        words = [token for token in tokens if token[0] != "comment"]
        if not words:
            return b" ".join(comments)
        found: list[list[tuple[str, bytes]]] = []
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
        return b" ".join([b", ".join(self.address(address) for address in found), *comments])


def _join_phrase(tokens: list[tuple[str, bytes]]) -> bytes:
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


def _tokens(value: bytes) -> list[tuple[str, bytes]]:
    tokens: list[tuple[str, bytes]] = []
    position = 0
    while position < len(value):
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


def complete_addresses(name: bytes, value: bytes, rewrite: Rewrite, quote: Rewrite) -> bytes | None:
    """
    Make the addresses of a header complete.

    @param name: the header's name, which counts for the length of the first line.
    @param value: what follows the colon, without the final newline; may be folded.
    @param rewrite: from internal form to complete internal form.
    @param quote: from internal to external form.
    @return: L{None} when nothing changes or the value cannot be read; else the new value with its leading
        space.
    """
    rewriter = _Rewriter(rewrite, quote)
    items: list[bytes] = []
    pending: list[tuple[str, bytes]] = []
    group = b""
    angle = False
    closed = False
    try:
        for token in [*_tokens(value), ("end", b"")]:
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
                item = rewriter.item(pending)
                if closed and (item or text != b","):
                    raise _Unreadable
                if text == b";":
                    item += b";"
                    group, item = b"", (group + b" " + item if group else item)
                elif group:
                    group, item = b"", group + b" " + item
                if not closed:
                    items.append(item)
                closed = text == b";"
            pending = []
        if not rewriter.changed or angle:
            return None
    except _Unreadable:
        return None
    lines = [name + b":"]
    for number, item in enumerate(items):
        if number < len(items) - 1:
            item += b","
        if number and len(lines[-1]) + 1 + len(item) > LINE_LENGTH:
            lines.append(b"\t" + item)
        else:
            lines[-1] += b" " + item
    return b"\n".join(lines)[len(name) + 1 :]
