"""
C{qmqpd-tx send}: hand a message to a QMQP server.

Takes a message from the standard input, servers, sender and recipients from the command line; exits as
qmail-qmqpc does and says on the standard error why it was not accepted. Byte for byte: the message is not
looked at. Exit status 0 means that a server has promised the message; any other, that the message is still
the caller's. Messages are held in a temporary file when they are large. Answers to qmail-qmqpc(8).
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import react

from qmqpd_tx.qmqp.send import (
    ExitStatus,
    Result,
    SeekableContent,
    Server,
    envelope_fault,
    parse_server,
    parse_servers,
    send_message,
)

_IN_MEMORY = 1024 * 1024

_EPILOG = """Exit status, as of qmail-queue: 0 accepted; 11 address too long; 31 refused for good; 53 cannot
write a temporary file; 54 cannot read the message; 55 cannot read a list of servers or recipients; 56 host
not found; 71 refused for now; 72 connection timed out; 73 connection rejected; 74 connection broke before the
reply; 91 wrong envelope."""


class _Stop(Exception):
    """An end with a status and a text."""

    def __init__(self, status: ExitStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


def _address(text: str) -> bytes:
    """
    @return: an address as bytes; C{<>} is the null address.
    """
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    return text.encode("utf-8", "surrogateescape")


def _standard_input() -> IO[bytes]:
    """
    @raise OSError: it is closed.
    """
    # Unlike what its type says it is None then.
    if not sys.stdin:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer


def _read_text(path: str) -> str:
    try:
        if path == "-":
            return _standard_input().read().decode("utf-8", "surrogateescape")
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise _Stop(ExitStatus.CONFIGURATION, f"cannot read {path}: {error.strerror}") from None


def _servers(names: Sequence[str], path: str | None) -> list[Server]:
    try:
        servers = [parse_server(name) for name in names]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if path is not None:
        try:
            servers += parse_servers(_read_text(path))
        except ValueError as error:
            raise _Stop(ExitStatus.CONFIGURATION, f"{path}, {error}") from None
    if path is None and not servers:
        servers = [Server("127.0.0.1")]
    if not servers:
        raise _Stop(ExitStatus.CONFIGURATION, f"{path}: no servers; give one IP address a line")
    return servers


def _spool(source: IO[bytes], content: IO[bytes]) -> int:
    """
    Copy the message to where its size is known and it can be read twice.

    @return: its size.
    """
    while True:
        try:
            chunk = source.read(_IN_MEMORY)
        except OSError as error:
            raise _Stop(ExitStatus.READ_ERROR, f"cannot read the message: {error.strerror}") from None
        if not chunk:
            return content.tell()
        try:
            content.write(chunk)
        except OSError as error:
            raise _Stop(ExitStatus.WRITE_ERROR, f"cannot write a temporary file: {error.strerror}") from None


def _run(
    servers: Sequence[Server],
    content: SeekableContent,
    size: int,
    sender: bytes,
    recipients: Sequence[bytes],
    timeout: float,
    connect_timeout: float,
) -> Result:
    results: list[Result] = []

    async def work(reactor: Any) -> None:
        def connect(server: Server) -> HostnameEndpoint:
            return HostnameEndpoint(reactor, server.host, server.port, timeout=connect_timeout)

        results.append(
            await send_message(servers, connect, reactor, content, size, sender, recipients, timeout)
        )

    def main(reactor: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(work(reactor))

    try:
        react(main)
    except SystemExit as end:
        if end.code:
            raise
    return results[0]


@click.command("send", epilog=_EPILOG)
@click.option(
    "--server",
    "server_names",
    metavar="HOST[:PORT]",
    multiple=True,
    help="A server to try; may be given several times. [default: 127.0.0.1:628]",
)
@click.option(
    "--servers",
    "servers_path",
    metavar="FILE",
    help="Servers to try, one IP[:PORT] a line, as in qmail's control/qmqpservers.",
)
@click.option("--from", "sender", metavar="SENDER", required=True, help="The envelope sender; <> for none.")
@click.option(
    "--recipients-file", metavar="FILE", help="More recipients, one a line; - for the standard input."
)
@click.option(
    "--message", "message_path", metavar="FILE", default="-", help="The message. [default: standard input]"
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds to wait for a sign of life from a server.",
)
@click.option(
    "--connect-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for each connection.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Show the reply of a server that accepts the message, too."
)
@click.argument("recipients", nargs=-1)
def send_command(
    server_names: Sequence[str],
    servers_path: str | None,
    sender: str,
    recipients_file: str | None,
    message_path: str,
    timeout: float,
    connect_timeout: float,
    verbose: bool,
    recipients: Sequence[str],
) -> int:
    """Send a message to RECIPIENTS by QMQP, through the first server that can be reached."""
    if recipients_file == "-" and message_path == "-":
        raise click.UsageError("the standard input cannot be both message and recipients; use --message")
    addresses = [_address(recipient) for recipient in recipients]
    try:
        servers = _servers(server_names, servers_path)
        if recipients_file is not None:
            lines = _read_text(recipients_file).split("\n")
            addresses += [_address(line.strip()) for line in lines if line.strip()]
        fault = envelope_fault(_address(sender), addresses)
        if fault is not None:
            raise _Stop(*fault)
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as content:
            try:
                source = _standard_input() if message_path == "-" else open(message_path, "rb")  # noqa: SIM115
            except OSError as error:
                name = "the message" if message_path == "-" else message_path
                raise _Stop(ExitStatus.READ_ERROR, f"cannot read {name}: {error.strerror}") from None
            with source:
                size = _spool(source, content)
            result = _run(servers, content, size, _address(sender), addresses, timeout, connect_timeout)
    except _Stop as stop:
        click.echo(f"qmqpd-tx: {stop}", err=True)
        return int(stop.status)
    if result.status is not ExitStatus.ACCEPTED or verbose:
        text = "".join(character if character.isprintable() else "?" for character in result.text)
        click.echo(f"qmqpd-tx: {result.server}: {text}", err=True)
    return int(result.status)
