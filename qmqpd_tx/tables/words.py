"""
Pieces of text that more than one kind of table reads: words, files, case.

Takes text or a path, gives lists of words and folded keys. Pure but for L{read_file} and
L{expand_files}, which read small configuration files at once (start-up and reload only). Fails with
L{ConfigError} that names the parameter and the file. Answers to Postfix's utility library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from qmqpd_tx.interfaces import ConfigError

_SEPARATORS = str.maketrans(dict.fromkeys(",\t\r\n\f\v", " "))
MAXIMAL_FILE_DEPTH = 8
"""How deep files with patterns may name further files, so that a file naming itself ends in an error."""


def encode(text: str) -> bytes:
    """
    @return: the bytes that the text had in its file.
    """
    return text.encode("utf-8", "surrogateescape")


def decode(value: bytes) -> str:
    """
    @return: the text for configuration use; L{encode} gives the same bytes back.
    """
    return value.decode("utf-8", "surrogateescape")


def is_utf8(key: bytes) -> bool:
    """
    @return: whether these bytes are text.
    """
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def fold(key: bytes) -> bytes:
    """
    Fold a fixed lookup key as Postfix does: ASCII to lower case, valid UTF-8 to its case folding.
    """
    if key.isascii():
        return key.lower()
    try:
        return key.decode("utf-8").casefold().encode("utf-8")
    except UnicodeDecodeError:
        return key.lower()


def split_words(text: str) -> list[str]:
    """
    @return: the words of a list, split at commas and white space outside C{{ }}.
    """
    if "{" not in text:
        return text.translate(_SEPARATORS).split()
    words: list[str] = []
    word: list[str] = []
    depth = 0
    for char in text:
        if depth == 0 and (char == "," or char.isspace()):
            if word:
                words.append("".join(word))
                word.clear()
            continue
        word.append(char)
        if char == "{":
            depth += 1
        elif char == "}" and depth:
            depth -= 1
    if word:
        words.append("".join(word))
    return words


def unbrace(text: str, shown: str, parameter: str) -> str:
    """
    @param text: begins with C{{}.
    @param shown: the whole table, for messages.
    @return: what is between the outer braces, without white space around it.
    @raise ConfigError: the brace is not closed, or something follows.
    """
    depth = 0
    for index, char in enumerate(text):
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                if index + 1 < len(text):
                    raise ConfigError(f'{parameter}: syntax error after \'}}\' in "{text}": "{shown}"')
                return text[1:-1].strip()
    raise ConfigError(f"{parameter}: bad syntax: missing '}}' in \"{shown}\"")


def read_file(path: str, parameter: str) -> bytes:
    """
    @raise ConfigError: the file cannot be read; names it.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"{parameter}: cannot read {path}: {reason}; create it or correct the name"
        ) from None


ReadFile = Callable[[str, str], bytes]
"""Takes a path, and the parameter on behalf of which it is read."""


def logical_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """
    Join continued lines. Empty lines and lines whose first non-blank character is C{#} are left out,
    also between a line and its continuation.

    @return: pairs of the line number at which the logical line began, and its text without the
        surrounding white space. A first line that starts with white space keeps it: it continues
        nothing, and the caller has something to complain about.
    """
    start = 0
    parts: list[bytes] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        if line[:1].isspace() and parts:
            parts.append(line)
            continue
        if parts:
            yield start, b"".join(parts).rstrip()
        start, parts = number, [line]
    if parts:
        yield start, b"".join(parts).rstrip()


def expand_files(
    patterns: Sequence[str], parameter: str, read: ReadFile = read_file, depth: int = 0
) -> Iterator[tuple[bool, str, str]]:
    """
    Replace each C{/file/name} by the patterns in it, and take the leading C{!} off.

    @param read: reads a file, as L{read_file}.
    @return: triples: whether the pattern includes (rather than excludes), the pattern, and where it
        stands, for messages.
    @raise ConfigError: a file cannot be read or files nest too deep.
    """
    for word in patterns:
        pattern = word.lstrip("!")
        include = (len(word) - len(pattern)) % 2 == 0
        if not pattern:
            raise ConfigError(f"{parameter}: no pattern after '!' in \"{word}\"; remove it")
        if not pattern.startswith("/"):
            yield include, pattern, parameter
            continue
        if depth >= MAXIMAL_FILE_DEPTH:
            raise ConfigError(f"{parameter}: {pattern}: files nest too deep; does a file name itself?")
        for number, line in logical_lines(read(pattern, parameter)):
            where = f"{parameter}: {pattern}, line {number}"
            for inner, element, place in expand_files(split_words(decode(line)), where, read, depth + 1):
                yield inner is include, element, place
