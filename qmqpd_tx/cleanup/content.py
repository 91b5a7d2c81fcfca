"""
The content of one message, on its way into the queue file.

Takes it in any chunking, lines ending in LF; gives what is to be stored as it arrives, and afterwards what
comes before it: the Received header, with the header section where that had to wait. Held is the header
section (up to C{header_size_limit} bytes; one header of a longer one). What the checks decide goes into the
L{Verdict<qmqpd_tx.cleanup.verdict.Verdict>}. Fails with L{TableError<qmqpd_tx.interfaces.TableError>} when an
address in a header cannot be looked up, and with L{IntakeError<qmqpd_tx.interfaces.IntakeError>} when the
message is refused. Answers to cleanup(8).

Missing C{Message-Id}, C{Date} and C{From} headers go to the end of the header section, as in Postfix. The
C{From} header needs the sender, which QMQP sends after the content; so a header section without C{From} is
held back and stored with the Received header. If it is too long to be held, the C{From} header comes right
after the Received header instead.
"""

from __future__ import annotations

from qmqpd_tx.cleanup.characters import line_around
from qmqpd_tx.cleanup.dates import MailDate
from qmqpd_tx.cleanup.header_maps import HeaderMapper, joined
from qmqpd_tx.cleanup.headers import HeaderSection, Part
from qmqpd_tx.cleanup.inspector import Inspector
from qmqpd_tx.cleanup.mapping import AddressMaps
from qmqpd_tx.cleanup.missing import lacks_from, missing_from, missing_headers, undisclosed
from qmqpd_tx.cleanup.opening import Opening
from qmqpd_tx.cleanup.received import received
from qmqpd_tx.cleanup.remarks import Remarks
from qmqpd_tx.cleanup.settings import Settings
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IntakeError, Treatment
from qmqpd_tx.message import ClientInfo, QueueID

log = Logger(namespace="qmqpd_tx.cleanup")

_BODY = Part.BODY


class Content:
    """
    See the module.

    @ivar eight_bit: whether there is a byte above 127.
    @ivar eight_bit_headers: whether there is one in a header, where SMTPUTF8 is detected.
    @ivar message_id: as in L{Envelope<qmqpd_tx.message.Envelope>}.
    @ivar remarks: what there is to log.
    """

    __slots__ = (
        "_add",
        "_arrival",
        "_client",
        "_date",
        "_first_chunk",
        "_headers",
        "_held",
        "_held_size",
        "_inspector",
        "_last",
        "_needs_from",
        "_opening",
        "_queue_id",
        "_rejected",
        "_settings",
        "_stripped",
        "_verdict",
        "eight_bit",
        "eight_bit_headers",
        "message_id",
        "remarks",
    )

    def __init__(
        self,
        settings: Settings,
        treatment: Treatment,
        maps: AddressMaps,
        verdict: Verdict,
        queue_id: QueueID,
        client: ClientInfo | None,
        arrival_time: float,
        date: MailDate,
    ) -> None:
        """
        @param settings: what the configuration says.
        @param treatment: what is to be done to the message.
        @param maps: what is done to addresses.
        @param verdict: takes what is decided.
        @param queue_id: the message.
        @param client: who brought it; L{None} for mail made here.
        @param arrival_time: POSIX seconds.
        @param date: writes dates.
        """
        self._settings = settings
        self._verdict = verdict
        self._queue_id = queue_id
        self._client = client
        self._arrival = arrival_time
        self._date = date
        checks = settings.checks
        self._inspector: Inspector | None = None
        looks = treatment.checks and checks.looks
        if treatment.checks and (looks or checks.strict):
            self._inspector = Inspector(checks, verdict, queue_id, client, looks)
            self.remarks = self._inspector.remarks
        else:
            self.remarks = Remarks(queue_id, client)
        self._rejected = settings.rejected if treatment.checks else None
        self._stripped = settings.stripped if treatment.checks else b""
        remote = treatment.remote_domain is not None
        self._add = not remote or settings.always_add
        if remote or maps.maps_headers:
            mapped = HeaderMapper(maps, verdict, queue_id).map
            self._headers = HeaderSection(settings.rules, self._inspector, mapped, maps.headers.get)
        else:
            self._headers = HeaderSection(settings.rules, self._inspector)
        self._opening: Opening | None = Opening(settings.rules.line_limit)
        self._first_chunk = True
        self._held: list[bytes] | None = []
        self._held_size = 0
        self._last = b""
        self._needs_from = False
        self.eight_bit = False
        self.eight_bit_headers = False
        self.message_id = b""

    async def take(self, data: bytes) -> bytes:
        """
        Take the next bytes.

        @return: what to store now.
        """
        opening = self._opening
        if opening is not None:
            data = opening.feed(data)
            if opening.is_over:
                self._opening = None
        return await self._take(data) if data else b""

    async def _take(self, data: bytes) -> bytes:
        if b"\r" in data:
            # A stray CR is not to pass for a line end anywhere (SMTP smuggling).
            data = data.replace(b"\r", b" ")
        if self._rejected is not None:
            found = self._rejected.search(data)
            if found is not None:
                return await self._refused(data, found.start())
        if self._stripped:
            data = data.translate(None, self._stripped)
        return await self._took(data) if data else b""

    async def _took(self, data: bytes) -> bytes:
        """
        @param data: the next bytes, with none in them that no message may have.
        """
        if not self.eight_bit and not data.isascii():
            self.eight_bit = True
        headers = self._headers
        if headers.part is _BODY:
            return self._stored(self._inspected(data))
        if self._first_chunk:
            self._first_chunk = False
            if not data.startswith(b"\n"):
                end = data.find(b"\n\n") + 1
                if end:
                    section = headers.section(data[:end])
                    if section is not None:
                        return self._end_headers(await joined(section), data[end:])
        output, body = headers.feed(data)
        header = await joined(output)
        return self._kept(header) if body is None else self._end_headers(header, body)

    async def _refused(self, data: bytes, position: int) -> bytes:
        """
        There is a character that no message may have. What checks find in the lines before it comes first.

        @param data: the next bytes.
        @param position: where in them it is.
        @return: nothing, when a check has decided.
        @raise IntakeError: otherwise.
        """
        await self._took(data[: data.rfind(b"\n", 0, position) + 1].translate(None, self._stripped))
        if not self._verdict.over:
            line = line_around(data, position).partition(b"\0")[0]
            self.remarks.add("reject", "content", line, b"5.7.1 disallowed character")
            raise IntakeError(True, "5.7.1", "Error: 5.7.1 disallowed character")
        return b""

    async def end(self) -> bytes:
        """
        There is no more.

        @return: the rest to store.
        """
        rest = b""
        if self._opening is not None:
            rest = await self._take(self._opening.close())
        if self._headers.part is not _BODY:
            output, body = self._headers.close()
            rest += self._end_headers(await joined(output), body)
        if self._inspector is not None:
            rest += self._stored(self._inspector.body_end())
        if self._last and self._last != b"\n":
            # Every delivery agent ends the last line anyway.
            rest += b"\n"
        return rest

    def top(self, recipient: bytes | None, sender: bytes) -> bytes:
        """
        @param recipient: the only recipient, as the client sent it; L{None} if there are several.
        @param sender: the envelope sender.
        @return: what comes before all that was written.
        """
        settings = self._settings
        date = self._date.render(self._arrival)
        top = received(settings, self._queue_id, self._client, recipient, date)
        checked = top if self._inspector is None else self._inspector.header(top)
        if settings.rules.drops(b"received"):
            checked = checked.removesuffix(top)
        top = checked
        if self._needs_from:
            origin = missing_from(self._headers, sender) + undisclosed(self._headers, settings)
            top = b"".join((top, *self._held, origin)) if self._held is not None else top + origin
        self._note_headers(top)
        return top

    def _end_headers(self, header: bytes, body: bytes) -> bytes:
        if self._verdict.over:
            return b""
        self._count_hops()
        headers = self._headers
        self._note_headers(header)
        missing, self.message_id = missing_headers(
            headers, self._settings, self._queue_id, self._arrival, self._date, self._add
        )
        self._needs_from = self._add and lacks_from(headers)
        body = self._inspected(body)
        held = self._held
        if held is None:
            return self._stored(header + missing + body)
        if self._needs_from:
            held += (header, missing)
            return self._stored(body)
        return self._stored(b"".join((*held, header, missing, body)))

    def _count_hops(self) -> None:
        if self._headers.received >= self._settings.rules.received_limit:
            log.warn("{queue_id}: message rejected: hopcount exceeded", queue_id=self._queue_id)
            raise IntakeError(True, "5.4.6", "Error: too many hops")

    def _note_headers(self, header: bytes) -> None:
        """Remember whether a header is beyond ASCII, where somebody wants to know."""
        if self._settings.detection.origins and not header.isascii():
            self.eight_bit_headers = True

    def _kept(self, header: bytes) -> bytes:
        """
        Keep part of the header section, if there is room.

        @return: what to store now.
        """
        if not header or self._verdict.over:
            return b""
        self._count_hops()
        self._note_headers(header)
        if self._held is None:
            return header
        self._held.append(header)
        self._held_size += len(header)
        if self._held_size <= self._settings.rules.size_limit:
            return b""
        # Too much to hold, so a missing From header will have to come first.
        header = b"".join(self._held)
        self._held = None
        return header

    def _inspected(self, body: bytes) -> bytes:
        """
        @return: what the checks leave of the next bytes of the body.
        """
        return body if self._inspector is None or not body else self._inspector.body(body)

    def _stored(self, data: bytes) -> bytes:
        """Remember how what is stored ends."""
        if data:
            self._last = data[-1:]
        return data
