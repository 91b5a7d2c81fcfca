"""
The inspection of one message. Sans-I/O.

Takes headers and body as they stream by; gives what is to be stored, and writes what is decided into the
L{Verdict<qmqpd_tx.cleanup.verdict.Verdict>}. Holds at most one header or one piece of a line. Promises that
any chunking of the content gives the same bytes and the same decisions. Never raises: a table that cannot say
makes the verdict a refusal for now. Answers to header_checks(5) and to what cleanup(8) does with MIME
structure, watched in a running Postfix:

  - headers are seen as they came, before they are dropped or rewritten, also our own Received header, but
    none of those that are added because they are missing; an empty line is not looked up;
  - C{mime_header_checks} sees the headers of L{MIME_HEADERS} everywhere, and all headers of parts;
    C{nested_header_checks} sees the others in attached messages;
  - what is wrong with the form of a message (C{strict_8bitmime}) does not end the inspection.

What there is to log is kept as L{Remarks<qmqpd_tx.cleanup.remarks.Remarks>} until the envelope is known.
"""

from __future__ import annotations

from qmqpd_tx.cleanup.actions import Actions, Edit
from qmqpd_tx.cleanup.body import BodyWalk
from qmqpd_tx.cleanup.checks import CheckTable, ContentChecks
from qmqpd_tx.cleanup.errors import NOT_WRITTEN, MapError, tell
from qmqpd_tx.cleanup.mime import MIME_HEADERS, Flaw, Structure
from qmqpd_tx.cleanup.remarks import Remarks
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.interfaces import IntakeError, TableError
from qmqpd_tx.message import ClientInfo, QueueID


class Inspector:
    """
    One message under inspection. What mail filters add has one of its own, with a verdict of its own.

    @ivar actions: its actions; L{Actions.active}: whether anything is still looked up.
    @ivar structure: its MIME structure; L{None} when that does not matter.
    @ivar remarks: what there is to log.
    """

    __slots__ = (
        "_checks",
        "_flaws",
        "_limits_nesting",
        "_looks",
        "_queue_id",
        "_verdict",
        "_walk",
        "actions",
        "remarks",
        "structure",
    )

    def __init__(
        self,
        checks: ContentChecks,
        verdict: Verdict,
        queue_id: QueueID,
        client: ClientInfo | None,
        looks: bool = True,
    ) -> None:
        """
        @param checks: the checks.
        @param verdict: takes what is decided.
        @param queue_id: the message.
        @param client: who brought it; L{None} for mail made here.
        @param looks: whether tables are looked up (not with C{no_header_body_checks}).
        """
        self._checks = checks
        self._verdict = verdict
        self._queue_id = queue_id
        self._flaws: set[Flaw] = set()
        self.remarks = Remarks(queue_id, client)
        self.actions = Actions(verdict, queue_id, self.remarks)
        self.actions.active = self._looks = looks
        reads_headers = (checks.headers or checks.mime or checks.nested) is not None
        self._limits_nesting = checks.strict or (looks and reads_headers)
        needed = checks.structured and (self._limits_nesting or (looks and checks.body is not None))
        self.structure = Structure(checks.nesting_limit, checks.boundary_limit) if needed else None
        self._walk: BodyWalk | None = None

    # --- the header section ------------------------------------------------------------------------

    def is_quiet(self, keys: bytes) -> bool:
        """
        @param keys: a whole header section without NUL, as L{keys_of<qmqpd_tx.cleanup.checks.keys_of>} gives
            it.
        @return: whether no header in it needs to be looked up or refused.
        """
        checks = self._checks
        if checks.strict_headers and not keys.isascii():
            return False
        if not self.actions.active:
            return True
        headers, mime = checks.headers, checks.mime
        if headers is not None and headers.may_match(keys):
            return False
        if mime is None or (headers is not None and mime.may_match is headers.may_match):
            return True
        return not mime.may_match(keys)

    def primary(self, name: bytes, header: bytes) -> Edit | None:
        """
        A header of the message itself.

        @param name: its name in lower case.
        @param header: all of it, without its last line end.
        @return: what to store instead, or L{None}.
        """
        self.note(name, header)
        checks = self._checks
        return self._look(checks.mime if name in MIME_HEADERS else checks.headers, header)

    def note(self, name: bytes, header: bytes) -> None:
        """
        Take note of a header without looking it up.
        """
        checks = self._checks
        if checks.strict_headers and not header.isascii():
            self.object_to(Flaw.HEADER_8BIT, header)
        if self.structure is not None and name in MIME_HEADERS:
            flaw = self.structure.header(name, header[len(name) + 1 :])
            if flaw is not None and self._limits_nesting:
                self.object_to(flaw, header)

    def header(self, raw: bytes) -> bytes:
        """
        A header that is made here: C{Received}. It is the first one of the message, although it is made last:
        what has ended the inspection since then does not matter.

        @param raw: the header with its line end.
        @return: what to store.
        """
        if not self._looks or self._verdict.over:
            return raw
        if not self.actions.active:
            self.actions = Actions(self._verdict, self._queue_id, self.remarks)
        return edited(self._look(self._checks.headers, raw[:-1]), raw)

    def milter_header(self, header: bytes) -> bytes | None:
        """
        A header that a mail filter adds or changes.

        @param header: all of it, without its last line end.
        @return: the same or another; L{None}: it is not to be stored.
        """
        edit = self._look(self._checks.milter, header)
        return header if edit is None else edit.text

    def part_header(self, name: bytes, header: bytes, nested: bool) -> Edit | None:
        """
        A header of a part, or of a message that is a part.
        """
        self.note(name, header)
        checks = self._checks
        if nested and name not in MIME_HEADERS:
            return self._look(checks.nested, header)
        return self._look(checks.mime, header)

    # --- the body ----------------------------------------------------------------------------------

    def begin_body(self, gap: bool) -> None:
        """
        The header section has ended.

        @param gap: whether the empty line after it was put there by us.
        """
        checks = self._checks
        if self.structure is not None or (checks.body is not None and self.actions.active):
            self._walk = BodyWalk(checks, self, gap)

    def body(self, data: bytes) -> bytes:
        """
        @param data: the next bytes of what follows the header section, with the empty line.
        @return: what to store now; the same object when all of it may be stored as it is.
        """
        return data if self._walk is None else self._walk.feed(data)

    def body_end(self) -> bytes:
        """
        The content has ended.

        @return: what is left to store.
        """
        walk, self._walk = self._walk, None
        rest = b"" if walk is None else walk.close()
        self._verdict.settle()
        return rest

    def line(self, line: bytes) -> Edit | None:
        """
        A line of the body, or a piece of one, without its line end and not empty.
        """
        return self._look(self._checks.body, line)

    def end_part_headers(self) -> None:
        """
        The headers of a part have ended: what they say together may be wrong.
        """
        structure = self.structure
        if structure is not None and self._checks.strict_encoding and structure.encoding_is_wrong:
            self.object_to(Flaw.ENCODING, structure.encoding.value.encode())

    def object_to(self, flaw: Flaw, text: bytes) -> None:
        """
        The form of the message is wrong.

        @param text: where.
        """
        if flaw not in self._flaws and not self._verdict.over:
            self._flaws.add(flaw)
            self.remarks.object_to(flaw.value, text)
            self._verdict.object_to(next(one for one in Flaw if one in self._flaws).error)

    # --- tables ------------------------------------------------------------------------------------

    def _look(self, table: CheckTable | None, text: bytes) -> Edit | None:
        if table is None or not self.actions.active:
            return None
        try:
            value = table.lookup(text)
        except TableError as error:
            tell(MapError(str(error), table.check.parameter), self._queue_id)
            self._verdict.reject(IntakeError(False, *NOT_WRITTEN))
            self.actions.active = False
            return None
        return None if value is None else self.actions.perform(value, table.check, text)


def edited(edit: Edit | None, raw: bytes) -> bytes:
    """
    @param edit: what a check wants.
    @param raw: a header with its line end.
    @return: what to store.
    """
    if edit is None:
        return raw
    before = b"" if edit.before is None else edit.before + b"\n"
    return before + (b"" if edit.text is None else edit.text + b"\n")
