"""
The MIME structure of a message: what its headers say of it, and where its parts begin and end. Pure.

Takes headers and boundary lines in the order in which they come; says what follows. Holds at most
C{mime_nesting_limit} + 2 boundaries of at most C{mime_boundary_length_limit} bytes. Never raises: what makes
no sense is a text part. Answers to the MIME processor of cleanup(8), watched in a running Postfix:

  - each C{boundary} parameter of each multipart C{Content-Type} header counts, whatever headers follow;
  - a line is a boundary when it begins with two dashes and the boundary, whatever follows; the innermost one
    that fits counts; two more dashes end the multipart, and all that are inside of it;
  - C{message/rfc822} and C{message/global} hold headers again, other kinds of C{message} do not; a part of a
    C{multipart/digest} is a C{message/rfc822} unless it says otherwise.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence

from attrs import frozen

from qmqpd_tx.interfaces import IntakeError

MIME_HEADERS = frozenset(
    b"mime-version content-type content-transfer-encoding content-description content-disposition"
    b" content-id".split()
)
"""The headers that mime_header_checks sees, wherever they are."""

_TOKEN = re.compile(
    rb"""[ \t\n]*+(?:
        "(?P<quoted>[^"\\]*+(?:\\.[^"\\]*+)*)(?:"|\\?\Z)
        |(?P<atom>[^\x00-\x20\x7f()<>@,;:\\"/\[\]?=]++)
        |(?P<special>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_MAJOR = re.compile(rb"[ \t\n]*+([^\x00-\x20\x7f()<>@,;:\\\"/\[\]?=]++)")
_ENCODING = re.compile(rb"[^\x00-\x20\x7f()<>@,;:\\\".\[\]]++")
"""A C{Content-Transfer-Encoding} is an atom of RFC 822, whose specials are others."""
_COMMENT_PART = re.compile(rb"[()]|\\.|[^()\\]++|\\\Z", re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)


class Type(enum.Enum):
    """What a part is to us."""

    TEXT = "text"
    MULTIPART = "multipart"
    RFC822 = "message/rfc822"
    GLOBAL = "message/global"
    FRAGMENT = "message/partial, message/external-body"


class Encoding(enum.Enum):
    """Its C{Content-Transfer-Encoding}; one that is not known counts as 7bit."""

    SEVEN = "7bit"
    EIGHT = "8bit"
    BINARY = "binary"
    QUOTED = "quoted-printable"
    BASE64 = "base64"


class Flaw(enum.Enum):
    """
    What can be wrong with the form of a message; the value is what the log and the client are told. Of
    several the client is told the one that comes first here.
    """

    NESTING = "MIME nesting exceeds safety limit"
    HEADER_8BIT = "improper use of 8-bit data in message header"
    BODY_8BIT = "improper use of 8-bit data in message body"
    ENCODING = "invalid message/* or multipart/* encoding domain"

    @property
    def error(self) -> IntakeError:
        """The refusal."""
        return IntakeError(True, "5.6.0", f"Error: 5.6.0 {self.value}")


_ENCODINGS = {encoding.value.encode(): encoding for encoding in Encoding}
_MESSAGES = {
    b"rfc822": Type.RFC822,
    b"global": Type.GLOBAL,
    b"partial": Type.FRAGMENT,
    b"external-body": Type.FRAGMENT,
}
_WRONG_ENCODINGS = {
    Type.MULTIPART: frozenset((Encoding.QUOTED, Encoding.BASE64)),
    Type.RFC822: frozenset((Encoding.QUOTED, Encoding.BASE64)),
    Type.FRAGMENT: frozenset((Encoding.EIGHT, Encoding.BINARY)),
}


@frozen(slots=True)
class ContentType:
    """
    A C{Content-Type} header.

    @ivar type: what the part is.
    @ivar digest: whether its parts are messages by default.
    @ivar boundaries: the boundaries that it names, in order.
    """

    type: Type
    digest: bool
    boundaries: Sequence[bytes] = ()


_STRUCTURED = frozenset((b"multipart", b"message"))
_TEXT = ContentType(Type.TEXT, False)


def _tokens(value: bytes) -> Iterator[tuple[str, bytes]]:
    """
    @return: (kind, text) of each token (RFC 2045 section 5.1) but for comments.
    """
    position = 0
    while match := _TOKEN.match(value, position):
        position = match.end()
        kind = match.lastgroup or ""
        text = match.group(kind)
        if kind == "quoted":
            text = _QUOTED_PAIR.sub(rb"\1", text.replace(b"\n", b""))
        elif text == b"(":
            position = _after_comment(value, position)
            continue
        yield kind, text


def _after_comment(value: bytes, position: int) -> int:
    """
    @param position: after the opening parenthesis.
    @return: where the comment ends.
    """
    depth = 1
    while depth and (part := _COMMENT_PART.match(value, position)):
        depth += {b"(": 1, b")": -1}.get(part.group(), 0)
        position = part.end()
    return position


def content_type(value: bytes, boundary_limit: int) -> ContentType:
    """
    @param value: what follows the colon; may be folded.
    @param boundary_limit: C{mime_boundary_length_limit}, bytes: what is longer is cut.
    """
    # Most have nothing more to say.
    first = _MAJOR.match(value)
    if first is not None and first[1].lower() not in _STRUCTURED:
        return _TEXT
    tokens = _tokens(value)
    kind, major = next(tokens, ("", b""))
    major = major.lower() if kind == "atom" else b""
    if major not in _STRUCTURED:
        return _TEXT
    token = next(tokens, ("", b""))
    minor = b""
    if token == ("special", b"/"):
        kind, minor = token = next(tokens, ("", b""))
        minor = minor.lower() if kind == "atom" else b""
    if major == b"message":
        return ContentType(_MESSAGES.get(minor, Type.TEXT), False)
    boundaries: list[bytes] = []
    while token[0]:
        if token == ("special", b";"):
            token = next(tokens, ("", b""))
            if token[0] == "atom" and token[1].lower() == b"boundary":
                token = next(tokens, ("", b""))
                if token == ("special", b"="):
                    token = next(tokens, ("", b""))
                    if token[0]:
                        boundaries.append(token[1][:boundary_limit])
            continue
        token = next(tokens, ("", b""))
    return ContentType(Type.MULTIPART, minor == b"digest", boundaries)


def transfer_encoding(value: bytes) -> Encoding:
    """
    @param value: what follows the colon of a C{Content-Transfer-Encoding} header.
    """
    plain = _ENCODINGS.get(value.strip(b" \t\n").lower())
    if plain is not None:
        return plain
    position = 0
    while (char := value[position : position + 1]) and char in b" \t\n(":
        position = _after_comment(value, position + 1) if char == b"(" else position + 1
    found = _ENCODING.match(value, position)
    return Encoding.SEVEN if found is None else _ENCODINGS.get(found.group().lower(), Encoding.SEVEN)


class Structure:
    """
    Where we are in one message.

    @ivar delimiters: how lines begin that are boundaries; empty where nothing is.
    @ivar type: what the headers of this part have said so far.
    @ivar encoding: its encoding.
    """

    __slots__ = ("_boundary_limit", "_digests", "_nesting_limit", "delimiters", "encoding", "type")

    def __init__(self, nesting_limit: int, boundary_limit: int) -> None:
        """
        @param nesting_limit: C{mime_nesting_limit}.
        @param boundary_limit: C{mime_boundary_length_limit}, bytes.
        """
        self._nesting_limit = nesting_limit
        self._boundary_limit = boundary_limit
        self._digests: list[bool] = []
        self.delimiters: tuple[bytes, ...] = ()
        self.type = Type.TEXT
        self.encoding = Encoding.SEVEN

    def header(self, name: bytes, value: bytes) -> Flaw | None:
        """
        Take note of a header of this part.

        @param name: in lower case.
        @return: what is wrong with it.
        """
        if name == b"content-transfer-encoding":
            self.encoding = transfer_encoding(value)
        elif name == b"content-type":
            found = content_type(value, self._boundary_limit)
            self.type = found.type
            for boundary in found.boundaries:
                if len(self.delimiters) >= self._nesting_limit + 2:
                    return Flaw.NESTING
                self.delimiters = (*self.delimiters, b"--" + boundary)
                self._digests.append(found.digest)
        return None

    @property
    def encoding_is_wrong(self) -> bool:
        """Whether this part must not be encoded in the way it is (RFC 2045 section 6.4)."""
        return self.encoding in _WRONG_ENCODINGS.get(self.type, ())

    def end_headers(self) -> bool:
        """
        The headers of this part have ended, with an empty line.

        @return: whether those of a message follow, which are then the current part.
        """
        if self.type is Type.MULTIPART:
            # Whatever comes before its first part.
            self.encoding = Encoding.SEVEN
        if self.type is not Type.RFC822 and self.type is not Type.GLOBAL:
            return False
        self.type = Type.TEXT
        self.encoding = Encoding.SEVEN
        return True

    def boundary(self, line: bytes) -> bool:
        """
        Go where a boundary leads.

        @param line: a line that begins with one of the L{delimiters}.
        @return: whether a part begins there; otherwise a multipart ends, and text follows.
        """
        index = len(self.delimiters) - 1
        while not line.startswith(self.delimiters[index]):
            index -= 1
        begins = not line.startswith(b"--", len(self.delimiters[index]))
        kept = index + 1 if begins else index
        self.delimiters = self.delimiters[:kept]
        del self._digests[kept:]
        self.type = Type.RFC822 if begins and self._digests[-1] else Type.TEXT
        self.encoding = Encoding.SEVEN
        return begins
