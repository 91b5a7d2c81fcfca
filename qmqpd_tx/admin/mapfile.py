"""
The text that an indexed file is built from.

Takes lines as postmap(1) describes them; gives keys and values, and warnings that name file and line. A line
that makes no sense is left out. Pure but for the files that C{-F} names. Answers to Postfix's postmap(1).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.texthash import read_lines
from qmqpd_tx.tables.words import decode, split_words


def read_entries(
    data: bytes, path: str, utf8: bool, files: bool, warn: Callable[[str], None]
) -> Iterator[tuple[int, bytes, bytes]]:
    """
    @param data: the whole text.
    @param path: its name, for warnings.
    @param utf8: whether lines must be valid UTF-8.
    @param files: whether values are names of files whose content is meant (C{-F}).
    @param warn: takes a warning.
    @return: line number, key and value of each entry, not folded.
    """
    for number, key, value in read_lines(data, path, utf8, warn):
        if files:
            try:
                value = encoded_files(decode(value))
            except ConfigError as error:
                warn(f"{path}, line {number}: {error}: skipping this entry")
                continue
        yield number, key, value


def encoded_files(names: str) -> bytes:
    """
    @param names: files, separated by commas or white space.
    @return: their content, with newlines in between, in base64.
    @raise ConfigError: one of them cannot be read.
    """
    parts = []
    for name in split_words(names):
        try:
            with open(name, "rb") as stream:
                parts.append(stream.read())
        except OSError as error:
            raise ConfigError(f"open {name}: {error.strerror}") from None
    return base64.b64encode(b"\n".join(parts))


def message_keys(data: bytes, headers: bool, body: bool) -> Iterator[bytes]:
    """
    The keys of a message: logical header lines (C{-h}) and body lines (C{-b}), without a look at MIME.

    @param data: the message.
    """
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    header: list[bytes] = []
    position = 0
    for line in lines:
        if line[:1] in (b" ", b"\t") and header:
            header.append(line)
        elif (name := re.match(rb"([!-9;-~]+)[ \t]*:", line)) is not None:
            if header and headers:
                yield b"\n".join(header)
            header = [name[1] + b":" + line[name.end() :]]
        else:
            break
        position += 1
    if header and headers:
        yield b"\n".join(header)
    if body:
        yield from lines[position:]
