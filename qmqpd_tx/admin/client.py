"""
The other end of the control socket and of the trigger socket, for commands. Blocking.

Takes the folder of the queue; gives the answers of the running service. Everything has a time limit.
When nobody listens the error says that the mail system is down, in Postfix's words.

Answers to: the client side of postqueue(1) and postkick(1).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from qmqpd_tx.admin.codec import ANSWER_LIMIT, SOCKET, ControlError, LineDecoder, decode_object, encode_object

TRIGGER_SOCKET = "public/qmgr"
"""Where the queue manager takes one-byte triggers, under C{queue_directory}."""

SECONDS = 30.0
"""How long the service may take to answer."""


class ServiceDown(Exception):
    """The mail system is down, or not reachable for this user, or does not answer."""


class NobodyListens(ServiceDown):
    """There is no socket, or it was left behind by a service that is gone."""


@contextmanager
def _connected(path: Path, seconds: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(str(path))
        except PermissionError as problem:
            raise ServiceDown(
                f"no permission to use {path}; run this as the user of the service"
            ) from problem
        except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError) as problem:
            raise NobodyListens("mail system is down") from problem
        except TimeoutError as problem:
            raise ServiceDown(f"the mail system took no connection within {seconds:g} seconds") from problem
        except OSError as problem:
            raise ServiceDown(f"cannot reach the mail system: {problem.strerror or problem}") from problem
        yield connection


class Conversation:
    """
    One connection to the running service, for as many requests as needed. A context manager.

    @ivar seconds: how long the service may take for an answer.
    """

    def __init__(self, queue_directory: Path, seconds: float = SECONDS) -> None:
        """
        @param queue_directory: whose service.
        @raise ServiceDown: nobody listens.
        """
        self.seconds = seconds
        self._stack = ExitStack()
        self._connection = self._stack.enter_context(_connected(queue_directory / SOCKET, seconds))
        self._decoder = LineDecoder(ANSWER_LIMIT)

    def ask(self, command: str, **members: Any) -> Any:
        """
        @param command: the name of a command.
        @param members: the other members of the request.
        @return: the result.
        @raise ServiceDown: the service hung up, or hangs.
        @raise ControlError: it refused; the text says why.
        """
        try:
            self._connection.sendall(encode_object({**members, "command": command}))
            while True:
                data = self._connection.recv(65536)
                if not data:
                    raise ServiceDown("the mail system hung up without an answer; see its log")
                lines = self._decoder.feed(data)
                if lines:
                    break
        except TimeoutError as problem:
            text = f"the mail system gave no answer within {self.seconds:g} seconds"
            raise ServiceDown(text) from problem
        except OSError as problem:
            raise ServiceDown(f"lost the connection to the mail system: {problem.strerror}") from problem
        answer = decode_object(lines[0])
        if answer.get("ok") is not True:
            raise ControlError(str(answer.get("error", "no reason given")))
        return answer.get("result")

    def close(self) -> None:
        """Hang up."""
        self._stack.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def request(queue_directory: Path, command: str, seconds: float = SECONDS, **members: Any) -> Any:
    """
    Ask the running service one thing.

    @param command: the name of a command.
    @param members: the other members of the request.
    @return: the result.
    @raise ServiceDown: nobody listens, or hangs.
    @raise ControlError: the service refused; the text says why.
    """
    with Conversation(queue_directory, seconds) as conversation:
        return conversation.ask(command, **members)


def trigger(queue_directory: Path, requests: bytes, seconds: float = SECONDS) -> None:
    """
    Send triggers to the queue manager.

    @param requests: as in C{b"FAD"}: see qmgr(8).
    @raise ServiceDown: nobody listens.
    """
    with _connected(queue_directory / TRIGGER_SOCKET, seconds) as connection:
        try:
            connection.sendall(requests)
        except OSError as problem:
            raise ServiceDown(f"lost the connection to the mail system: {problem.strerror}") from problem
