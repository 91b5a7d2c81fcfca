"""
The verbose log of one connection: C{debug_peer_list}.

Takes what is read from a client and what is said to it; logs each netstring and each reply, and from level 2
on each read, in lines that begin as those of Postfix's qmqpd(8) with C{-v}. Of addresses, content and replies
only the first bytes are shown, printable. Without a L{Trace} a connection does nothing of this, and costs
nothing.
"""

from __future__ import annotations

from qmqpd_tx.events import Logger
from qmqpd_tx.message import ClientInfo
from qmqpd_tx.qmqp.parser import Event, QMQPParser

log = Logger(namespace="qmqpd_tx.qmqpd")

SHOWN = 30
"""How many bytes of anything are shown."""

READS = 2
"""From which level on each read is logged."""


def shown(data: bytes) -> str:
    """
    @return: the first bytes of something, with a question mark for what cannot be printed.
    """
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in data[:SHOWN])


class Trace:
    """
    Logs one client's connection.
    """

    __slots__ = ("_client", "_level")

    def __init__(self, client: ClientInfo, level: int) -> None:
        """
        @param client: whose.
        @param level: C{debug_peer_level}.
        """
        self._client = client
        self._level = level

    def listed(self, parameter: str, found: bool) -> None:
        """
        A list of clients was searched.
        """
        log.info(
            "match_list: {parameter}: {name} {address}: {outcome}",
            parameter=parameter,
            name=self._client.name,
            address=self._client.address,
            outcome="match" if found else "no match",
        )

    def read(self, size: int) -> None:
        """
        So many bytes came.
        """
        if self._level >= READS:
            log.info("vstream_buf_get_ready: got {size}", size=size)

    def found(self, event: Event, data: bytes) -> None:
        """
        The parser found something.
        """
        if event is Event.CONTENT:
            log.info(
                "netstring_get_data: read netstring data {data} ({size} bytes of message content)",
                data=shown(data),
                size=len(data),
            )
        elif event is Event.SENDER or event is Event.RECIPIENT:
            log.info("netstring_get_length: read netstring length {size}", size=len(data))
            log.info("netstring_get_data: read netstring data {data}", data=shown(data))
        elif event is Event.END:
            log.info("netstring_get_terminator: end of the packet")
        else:
            log.info("netstring_except: {reason}", reason=shown(data))

    def replied(self, reply: bytes) -> None:
        """
        A reply is sent, or will be when C{qmqpd_error_delay} is over.
        """
        size, _, text = reply.partition(b":")
        log.info(
            "netstring_put: write netstring len {size} data {data}",
            size=size.decode("ascii"),
            data=shown(text[:-1]),
        )


class TracedParser(QMQPParser):
    """
    A parser that tells a trace what it finds.
    """

    __slots__ = ("_trace",)

    def __init__(self, content_limit: int | None, address_limit: int, trace: Trace) -> None:
        """
        @param trace: what it tells.
        """
        super().__init__(content_limit, address_limit)
        self._trace = trace

    def feed(self, data: bytes) -> list[tuple[Event, bytes]]:
        """
        See L{QMQPParser.feed}.
        """
        self._trace.read(len(data))
        events = super().feed(data)
        for event, found in events:
            self._trace.found(event, found)
        return events
