"""
C{qmqpd-tx postqueue}: look at the queue, and try it again.

C{-p} and C{-j} read the queue folders, whether the service is up or down, and never change anything. What
comes or goes meanwhile may be shown twice or not at all; a file that cannot be understood is named on
standard error, the listing goes on, and the status is 65. C{-f}, C{-i} and C{-s} ask the running service.
C{--explain} asks it as well, and without one tells what the files say.

Exit status: 0 done; 64 wrong usage; 65 a queue file is damaged; 69 the mail system is down, or the message
is not there; 75 the queue cannot be read now; 77 no permission; 78 wrong configuration.

Answers to: postqueue(1).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from qmqpd_tx.admin.client import NobodyListens, ServiceDown, request
from qmqpd_tx.admin.codec import ControlError
from qmqpd_tx.admin.context import CommandError, Context, Exit
from qmqpd_tx.admin.explaining import from_files, in_words, quoted
from qmqpd_tx.admin.listing import ListedMessage, as_json, plain, printable
from qmqpd_tx.admin.reading import listed_messages
from qmqpd_tx.admin.steps import QUEUE_ID
from qmqpd_tx.interfaces import MessageNotFound


@click.command("postqueue")
@click.option("-p", "plainly", is_flag=True, help="List the queue, as mailq does.")
@click.option("-j", "in_json", is_flag=True, help="List the queue, one JSON object a message.")
@click.option("-f", "flush", is_flag=True, help="Try all deferred mail now.")
@click.option("-i", "queue_id", metavar="ID", help="Try one deferred message now.")
@click.option("-s", "site", metavar="SITE", help="Try all mail now that is deferred for a site.")
@click.option("--explain", "explained", metavar="ID", help="Say what a message is waiting for.")
@click.option("--json", "explain_in_json", is_flag=True, help="With --explain: one JSON object.")
@click.option("-v", "verbose", count=True, help="Say on standard error what is done.")
@click.pass_obj
def postqueue_command(
    context: Context,
    plainly: bool,
    in_json: bool,
    flush: bool,
    queue_id: str | None,
    site: str | None,
    explained: str | None,
    explain_in_json: bool,
    verbose: int,
) -> int:
    """List the mail queue, try it again, or say why a message waits: exactly one of -p, -j, -f, -i, -s and
    --explain."""
    asked = [plainly, in_json, flush, queue_id is not None, site is not None, explained is not None]
    if asked.count(True) != 1:
        raise click.UsageError("exactly one of -p, -j, -f, -i ID, -s SITE and --explain ID is needed")
    if explain_in_json and explained is None:
        raise click.UsageError("--json goes with --explain; -j is the listing")
    if queue_id is not None and QUEUE_ID.fullmatch(queue_id) is None:
        raise CommandError(f'cannot flush queue ID - invalid name: "{printable(queue_id)}"', Exit.USAGE)
    if explained is not None and QUEUE_ID.fullmatch(explained) is None:
        raise CommandError(f'cannot explain - invalid queue ID: "{printable(explained)}"', Exit.USAGE)
    folder = Path(context.config().string("queue_directory"))
    if verbose:
        click.echo(f"qmqpd-tx: queue_directory = {printable(str(folder))}", err=True)
    if flush:
        ask(folder, "flush")
    elif queue_id is not None:
        ask(folder, "deliver_now", queue_id=queue_id)
    elif site is not None:
        count = ask(folder, "flush_site", site=site)
        if verbose:
            click.echo(f"qmqpd-tx: {count} messages made active", err=True)
    elif explained is not None:
        explain(folder, explained, explain_in_json)
    else:
        return show(folder, in_json)
    return int(Exit.OK)


def ask(folder: Path, command: str, **members: Any) -> Any:
    """
    Have the running service do something.

    @return: what it answers.
    @raise CommandError: it is down, or refuses.
    """
    try:
        return request(folder, command, **members)
    except ServiceDown as problem:
        raise CommandError(f"cannot flush mail queue - {problem}", Exit.UNAVAILABLE) from problem
    except ControlError as problem:
        raise CommandError(printable(str(problem)), Exit.UNAVAILABLE) from problem


def explain(folder: Path, queue_id: str, in_json: bool) -> None:
    """
    Print why a message waits.

    @raise CommandError: there is none, or it cannot be read.
    """
    running = True
    try:
        explained = request(folder, "explain", queue_id=queue_id)
    except NobodyListens:
        running = False
        explained = explained_from_files(folder, queue_id)
    except ServiceDown as problem:
        raise CommandError(f"cannot explain {queue_id} - {problem}", Exit.UNAVAILABLE) from problem
    except ControlError as problem:
        raise CommandError(printable(str(problem)), Exit.UNAVAILABLE) from problem
    explained = quoted(explained)
    if in_json:
        click.echo(json.dumps({**explained, "service_running": running}))
    else:
        for line in in_words(explained, time.time()):
            click.echo(line)


def explained_from_files(folder: Path, queue_id: str) -> dict[str, Any]:
    """
    @return: what can be said of a message while no service runs.
    @raise CommandError: there is none, or it cannot be read.
    """
    try:
        return from_files(folder, queue_id)
    except MessageNotFound as problem:
        raise CommandError(str(problem), Exit.UNAVAILABLE) from problem
    except PermissionError as problem:
        text = f"{problem.filename}: {problem.strerror}; run this as the user of the service"
        raise CommandError(text, Exit.NOPERM) from problem
    except OSError as problem:
        raise CommandError(f"{problem.filename}: {problem.strerror}", Exit.TEMPORARY) from problem


def show(folder: Path, in_json: bool) -> int:
    """
    Print the listing.

    @return: the exit status.
    """
    damaged: list[str] = []

    def messages() -> Iterator[ListedMessage]:
        return listed_messages(folder, damaged.append)

    try:
        if not folder.is_dir():
            raise CommandError(f"{folder}: no such folder; check queue_directory", Exit.CONFIG)
        lines = map(as_json, messages()) if in_json else plain(messages())
        for line in lines:
            click.echo(line)
    except PermissionError as problem:
        text = f"{problem.filename}: {problem.strerror}; run this as the user of the service"
        raise CommandError(text, Exit.NOPERM) from problem
    except BrokenPipeError:
        # The reader has seen enough (`| head`): no error, and nothing may be flushed to it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return int(Exit.OK)
    except OSError as problem:
        if problem.filename is None:
            raise  # Not from the queue, but from standard output.
        raise CommandError(f"{problem.filename}: {problem.strerror}", Exit.TEMPORARY) from problem
    for text in damaged:
        click.echo(f"qmqpd-tx: warning: {printable(text)}", err=True)
    return int(Exit.DATA if damaged else Exit.OK)
