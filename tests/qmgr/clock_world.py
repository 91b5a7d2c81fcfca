"""
The whole way of a message on a clock: cleanup, queue, queue manager, routing, the real SMTP client and
bounces, with scripted servers at the far end of a network in memory.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.error import ConnectionRefusedError, TimeoutError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from qmqpd_tx.address import Router
from qmqpd_tx.bounce import Bounces
from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.config import config_from_text
from qmqpd_tx.maillog.render import TextFormatter
from qmqpd_tx.message import ClientInfo, Queue, QueueID
from qmqpd_tx.qmgr.service import QueueManager
from qmqpd_tx.spool.memory import MemoryMailQueue
from qmqpd_tx.transports.registry import TransportRegistry
from tests.interop.destination_cases import SENDER, SMALL, Case
from tests.interop.scripted_smtp import Act, Script, Session, Transaction
from tests.transports.smtp.support import Peer

START = 1_700_000_000.0
CLIENT = ClientInfo("client.test", "127.0.0.1", 1234)


class Destination:
    """
    A server in memory.

    @ivar script: what it does, on open connections too.
    @ivar connects: C{""}, or how connections to it fail: C{refused} or C{timeout}.
    @ivar sessions: how many connections were tried.
    @ivar taken: the messages it took.
    """

    def __init__(self, script: Script | None = None, connects: str = "", pipelining: bool = True) -> None:
        self.script: Script = script or {}
        self.connects = connects
        self.pipelining = pipelining
        self.sessions = 0
        self.taken: list[Transaction] = []


class _Link:
    """One connection to a destination."""

    def __init__(self, destination: Destination, peer: Peer) -> None:
        self.destination = destination
        self.peer = peer
        self.session = Session(destination.script, pipelining=destination.pipelining)
        self._say(self.session.begin())

    def _say(self, data: bytes) -> None:
        if data and not self.peer.wire.closed:
            self.peer.protocol.dataReceived(data)

    def move(self) -> bool:
        """
        Carry what is there to be carried.

        @return: whether there was anything.
        """
        session, peer = self.session, self.peer
        session.script = self.destination.script
        data = peer.heard()
        if data and session.over is None:
            answer = session.feed(data)
            self.destination.taken += session.finished
            session.finished.clear()
            self._say(answer)
        if session.over in (Act.CLOSE, Act.RESET) or peer.wire.closed:
            peer.close()
            return True
        producer = peer.wire.producer
        if producer is not None and session.over is None:
            producer.resumeProducing()
            return True
        return bool(data)


class World:
    """
    Everything between a QMQP server and the destinations.

    @ivar now: the time.
    @ivar queue: the queue.
    @ivar manager: the queue manager.
    @ivar lines: the mail log: program and text.
    @param destinations: the servers by the domain whose mail they get.
    @param settings: main.cf lines.
    """

    def __init__(self, destinations: Mapping[str, Destination], settings: str = "") -> None:
        self._ports = {10_001 + number: each for number, each in enumerate(destinations.values())}
        self.ports = {domain: 10_001 + number for number, domain in enumerate(destinations)}
        table = ", ".join(f"{{{domain}=smtp:[127.0.0.1]:{port}}}" for domain, port in self.ports.items())
        config = config_from_text(
            "myhostname = relay.test\nmydestination =\ninet_protocols = ipv4\n"
            f"transport_maps = inline:{{{{source.test=discard:}}, {table}}}\n{settings}"
        )
        self._reactor = MemoryReactorClock()
        self._reactor.advance(START)
        self.lines: list[tuple[str, str]] = []
        self._formatter = TextFormatter()
        globalLogPublisher.addObserver(self._log)
        self._links: list[_Link] = []
        self._accepted = 0
        self.queue = MemoryMailQueue()
        self.queue.start()
        self._transports = TransportRegistry(self._reactor, None)
        self._transports.reconfigure(config)
        self._cleanup = Cleanup(config=config, clock=self._reactor, queue=self.queue)
        self.manager = QueueManager(
            config=config,
            clock=self._reactor,
            queue=self.queue,
            router=Router(config),
            transports=self._transports,
            bounces=Bounces(config=config, clock=self._reactor, queue=self.queue, cleanup=self._cleanup),
            random=random.Random(1),
        )
        self._cleanup.arrivals = self.manager
        self.manager.startService()
        self.settle()

    def stop(self) -> Sequence[object]:
        """
        End all.

        @return: the timers that were left behind.
        """
        stopped = [self.manager.stopService(), self._transports.stop()]
        self.advance(20.0)
        for link in self._links:
            link.peer.close()
        self.settle()
        globalLogPublisher.removeObserver(self._log)
        assert all(each.called for each in stopped)
        return self._reactor.getDelayedCalls()

    @property
    def now(self) -> float:
        """POSIX seconds."""
        return self._reactor.seconds()

    def send(self, recipient: bytes, content: bytes = SMALL) -> QueueID:
        """
        Hand a message over, as the QMQP server does, and let happen what happens at once.
        """
        incoming = self._cleanup.begin(CLIENT)
        incoming.content(content)
        incoming.sender(SENDER)
        incoming.recipient(recipient)
        found: list[QueueID] = []
        incoming.finish().addCallback(found.append)
        self.settle()
        return found[0]

    def advance(self, seconds: float) -> None:
        """
        Let time pass, from one timer to the next.
        """
        end = self.now + seconds
        while True:
            timers = [call.getTime() for call in self._reactor.getDelayedCalls()]
            if not timers or min(timers) > end:
                break
            self._reactor.advance(max(0.0, min(timers) - self.now))
            self.settle()
        self._reactor.advance(end - self.now)
        self.settle()

    def settle(self) -> None:
        """
        Let everything happen that can happen now.
        """
        for _ in range(20_000):
            moved = self._connect()
            for link in list(self._links):
                if link.peer.gone:
                    self._links.remove(link)
                elif link.move():
                    moved = True
            if any(call.getTime() <= self.now for call in self._reactor.getDelayedCalls()):
                self._reactor.advance(0)
                moved = True
            if not moved:
                return
        raise AssertionError("it does not come to rest")

    def status_lines(self, recipient: bytes) -> list[str]:
        """
        @return: the C{status=} lines of a recipient, as C{program: text} without the queue id.
        """
        return [
            f"{program}: {text.partition(': ')[2]}"
            for program, text in self.lines
            if f": to=<{recipient.decode()}>" in text
        ]

    def where(self, queue_id: QueueID) -> list[Queue]:
        """
        @return: the queues that a message is in.
        """
        found = []
        for queue in Queue:
            listing: list[Any] = []
            self.queue.scan(queue).next(10_000).addCallback(listing.extend)
            if any(entry.queue_id == queue_id for entry in listing):
                found.append(queue)
        return found

    def _log(self, event: LogEvent) -> None:
        namespace = str(event.get("log_namespace", ""))
        if namespace.startswith("qmqpd_tx.") and event["log_level"] is not LogLevel.debug:
            program = event.get("program") or namespace.removeprefix("qmqpd_tx.")
            self.lines.append((str(program), self._formatter.text(event)))

    def _connect(self) -> bool:
        attempts = self._reactor.tcpClients[self._accepted :]
        for host, port, factory, timeout, _ in attempts:
            connector = self._reactor.connectors[self._accepted]
            self._accepted += 1
            destination = self._ports[port]
            destination.sessions += 1
            if destination.connects == "refused":
                factory.clientConnectionFailed(
                    connector, Failure(ConnectionRefusedError(osError=OSError(111, "Connection refused")))
                )
            elif destination.connects == "timeout":
                failure = Failure(TimeoutError())
                self._reactor.callLater(timeout, factory.clientConnectionFailed, connector, failure)
            else:
                self._links.append(_Link(destination, Peer(host, port, factory)))
        return bool(attempts)


def expected_line(case: Case, port: int) -> str:
    """
    @return: the C{status=} line of a case, whole.
    """
    delay = f"{case.setup + case.transfer:g}"
    return (
        f"smtp: to=<{case.recipient.decode()}>, relay={case.relay_for(port)}, delay={delay},"
        f" delays=0/0/{case.setup:g}/{case.transfer:g}, dsn={case.dsn}, status={case.status}"
        f" ({case.text_for(port)})"
    )
