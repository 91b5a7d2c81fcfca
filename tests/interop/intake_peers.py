"""
The same scenario of intake through a real Postfix and through our whole service.

A L{Scenario} is a configuration with its table files, and messages. Each server is started once for it, and
the messages go in one after the other: what happens between the reply and an empty queue belongs to that
message. An L{Outcome} is all that can be seen of it from outside: the reply, what the sinks got, whether it
was held, and what cleanup and the delivery agent said in the log; without queue ids, process ids, dates and
times.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import Factory, frozen

from tests.cleanup.cases import Case
from tests.cleanup.sink import Delivery, Sink
from tests.peers import PrivatePostfix, free_port, scratch
from tests.service import RunningService, qmqp_send

WAIT_SECONDS = 15.0

LOG_LINE = 1500
"""So much of a line of the log is compared: Postfix cuts them at about 2000 characters."""

COMMON = {
    "compatibility_level": "3.6",
    "qmqpd_error_delay": "0",
    "smtp_line_length_limit": "0",
    "maximal_backoff_time": "4000s",
}


TRANSPORTS = """\
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
"""


@frozen
class Scenario:
    """
    One configuration, and messages for it.

    @ivar name: for the failure report.
    @ivar settings: main.cf parameters. C{FOLDER} stands for the folder of the files, C{SINK} and C{OTHER} for
        C{[127.0.0.1]:port} of the two sinks; everything goes to the first one unless it is routed elsewhere.
    @ivar cases: the messages.
    @ivar files: table files by name.
    @ivar options: C{-o} options of the qmqpd line in master.cf.
    """

    name: str
    settings: Mapping[str, str]
    cases: Sequence[Case]
    files: Mapping[str, str] = Factory(dict)
    options: Sequence[str] = ()


@frozen
class Outcome:
    """
    What became of a message.

    @ivar reply: the server's; of an acceptance only the C{K}.
    @ivar deliveries: for each transaction which sink, the sender, the recipients and the content; sorted. Of
        a delivery notice, only to whom it went.
    @ivar held: how many messages there are on hold, afterwards, that were not before.
    @ivar log: what cleanup(8) and qmqpd(8) logged of it; sorted, as the order depends on when envelope and
        content come, which is the other way round in Postfix.
    @ivar routes: C{to=} and C{orig_to=} of each delivery in the log; sorted.
    """

    reply: bytes
    deliveries: Sequence[tuple[str, bytes, tuple[bytes, ...], bytes]] = ()
    held: int = 0
    log: Sequence[str] = ()
    routes: Sequence[str] = ()


_DATE = re.compile(rb"[A-Z][a-z]{2}, [ 0-9]\d [A-Z][a-z]{2} \d{4} [\d:]{8} [-+]\d{4} \(\w+\)")
_STAMP = re.compile(rb"<\d{14}\.[0-9A-Za-z]+@")
_RECEIVED_ID = re.compile(rb"with QMQP id [0-9A-Za-z]+")
_LINE = re.compile(r"postfix/(?P<program>[\w/-]+)\[\d+\]: (?P<text>.*)")
_ID = re.compile(r"^(warning: )?[0-9A-Za-z]{9,}: ")
_PASSED_OVER = re.compile(
    r"(dis)?connect from |[0-9A-Za-z]+: client=|.* while receiving QMQP packet header$"
    r"|warning: mail_stream_cleanup: close error$|warning: valid_ipv4_hostaddr: "
    r"|warning: fail:\w+ lookup error for |warning: \w+: table fail:\w+: "
    r"|warning: file system clock is |warning: resetting file time stamps "
)
"""What is of no interest, and what libraries of Postfix, and tables here, add to what the programs say."""

_ROUTE = re.compile(r"to=<[^>]*>,( orig_to=<[^>]*>,)?")
_ACTIVE = re.compile(r"qmgr\[\d+\]: (\w+): from=<")
_REMOVED = re.compile(r": (\w+): removed$", re.MULTILINE)
_NOTICE = re.compile(rb"\bContent-Type: multipart/report", re.IGNORECASE)


class Server:
    """
    One of the two, with its sinks, ready for messages.

    @param port: where it takes mail.
    @param sinks: by name.
    @param log: reads its log.
    @param catch_up: waits for the log, which lags behind.
    @param pending: how many messages are on their way.
    @param held: how many are on hold.
    """

    def __init__(
        self,
        port: int,
        sinks: Mapping[str, Sink],
        log: Callable[[], str],
        catch_up: Callable[[], None],
        pending: Callable[[], int],
        held: Callable[[], int],
    ) -> None:
        self._port = port
        self._sinks = sinks
        self._log = log
        self._catch_up = catch_up
        self._pending = pending
        self._held = held
        self._taken = {name: 0 for name in sinks}

    def outcome(self, case: Case) -> Outcome:
        """
        Send one message, and wait until it has gone.
        """
        logged, held = len(self._log()), self._held()
        reply = qmqp_send(self._port, case.content, case.sender, list(case.recipients))
        queue_id = reply.rpartition(b" ")[2] if reply.startswith(b"K") else b""
        self._wait(case, queue_id.decode(), logged, held)
        found = sorted(
            (
                name,
                delivery.sender.partition(b"> ")[0].removesuffix(b">") + b">",
                tuple(sorted(delivery.recipients)),
                content,
            )
            for name, delivery in self._new()
            for content in [neutral(delivery.content, queue_id)]
        )
        log = self._log()[logged:]
        for name, sink in self._sinks.items():
            log = log.replace(f"[127.0.0.1]:{sink.port}", name)
        lines, routes = _of_interest(log, queue_id)
        if not found and self._held() == held:
            # Whether the header section was read so far as to know the id does not matter then.
            lines = [line for line in lines if ": message-id=" not in line]
        return Outcome(
            reply=b"K" if queue_id else reply,
            deliveries=found,
            held=self._held() - held,
            log=sorted(lines),
            routes=routes,
        )

    def _wait(self, case: Case, queue_id: str, logged: int, held: int) -> None:
        """
        Until there is nothing more to come: the message has gone, and the notices that it made, which are
        queued before it goes; and the log says so.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            pending = self._pending()
            self._catch_up()
            log = self._log()[logged:]
            gone = set(_REMOVED.findall(log))
            waiting = set(_ACTIVE.findall(log)) - gone
            if queue_id and queue_id not in gone and f"{queue_id}: discard: " not in log:
                waiting |= {queue_id} if self._held() == held else set()
            if not waiting and not pending:
                return
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{case.name}: still in the queue: {waiting}; log: {self._log()[-3000:]}"
                )
            time.sleep(0.01)

    def _new(self) -> Iterator[tuple[str, Delivery]]:
        for name, sink in self._sinks.items():
            deliveries = list(sink.deliveries)
            for delivery in deliveries[self._taken[name] :]:
                yield name, delivery
            self._taken[name] = len(deliveries)


def neutral(content: bytes, queue_id: bytes) -> bytes:
    """
    @return: a message without what must differ; of a notice, whose wording is each one's own, nothing.
    """
    if _NOTICE.search(content):
        return b"NOTICE"
    if queue_id:
        content = content.replace(queue_id, b"ID")
    content = _RECEIVED_ID.sub(b"with QMQP id ID", _DATE.sub(b"DATE", content))
    return _STAMP.sub(b"<STAMP.ID@", content).replace(b"\r\n", b"\n")


def _of_interest(log: str, queue_id: bytes) -> tuple[Sequence[str], Sequence[str]]:
    lines = []
    routes = []
    for line in log.splitlines():
        found = _LINE.search(line)
        if found is None:
            continue
        program, text = found["program"], found["text"]
        if queue_id:
            text = text.replace(queue_id.decode(), "ID")
        text = neutral(text.encode(), b"").decode()
        if program in ("cleanup", "qmqpd"):
            if not _PASSED_OVER.match(text):
                lines.append(f"{program}: " + _ID.sub(r"\1ID: ", text)[:LOG_LINE])
        elif text.startswith("ID: to=<"):
            route = _ROUTE.search(text)
            routes.append(route.group() if route else text)
    # Several programs of Postfix log at the same time.
    return lines, sorted(routes)


@contextmanager
def _prepared(scenario: Scenario) -> Iterator[tuple[Mapping[str, str], str, Mapping[str, Sink]]]:
    """
    Table files and sinks; and settings, and options for master.cf, that name them.
    """
    with ExitStack() as stack:
        folder = scratch()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for name, text in scenario.files.items():
            (folder / name).write_text(text)
        sinks = {}
        for name in ("sink", "other"):
            sinks[name] = Sink()
            stack.callback(sinks[name].__exit__)
        names = {
            "FOLDER": str(folder),
            "SINK": f"[127.0.0.1]:{sinks['sink'].port}",
            "OTHER": f"[127.0.0.1]:{sinks['other'].port}",
        }

        def filled(text: str) -> str:
            for word, value in names.items():
                text = text.replace(word, value)
            return text

        for path in folder.iterdir():
            path.write_text(filled(path.read_text()))
        settings = {**COMMON, "relayhost": "SINK", **scenario.settings}
        options = "".join(f"    -o {option}\n" for option in scenario.options)
        yield {name: filled(value) for name, value in settings.items()}, filled(options), sinks


@contextmanager
def postfix(scenario: Scenario) -> Iterator[Server]:
    """
    A running Postfix with the scenario's configuration.
    """
    with _prepared(scenario) as (settings, options, sinks):
        peer = PrivatePostfix(settings)
        with ExitStack() as stack:
            stack.callback(peer.stop)
            _add_options(peer.config / "master.cf", options)
            peer.start()
            yield Server(
                peer.port,
                sinks,
                peer.log,
                peer.catch_up,
                lambda: len(list(peer.queue_files("maildrop", "incoming", "active", "deferred"))),
                lambda: len(list(peer.queue_files("hold"))),
            )


def _add_options(master: Path, options: str) -> None:
    text = master.read_text()
    line = " qmqpd\n"
    assert line in text
    master.write_text(text.replace(line, line + options, 1))


@contextmanager
def ours(scenario: Scenario) -> Iterator[Server]:
    """
    Our running service with the scenario's configuration.
    """
    with _prepared(scenario) as (settings, options, sinks), ExitStack() as stack:
        folder = scratch()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = free_port()
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        master = f"127.0.0.1:{port} inet n - n - 50 qmqpd\n{options}" + TRANSPORTS
        service = stack.enter_context(RunningService(folder, port, text, master=master, listen=()))

        def files(*queues: str) -> int:
            return sum(name.split("/")[0] in queues for name in service.queued())

        yield Server(
            port,
            sinks,
            service.log_text,
            service.catch_up,
            lambda: files("incoming", "active", "deferred"),
            lambda: files("hold"),
        )


def outcomes(server: Server, scenario: Scenario) -> Mapping[str, Outcome]:
    """
    @return: what became of each message, by its name.
    """
    return {case.name: server.outcome(case) for case in scenario.cases}
