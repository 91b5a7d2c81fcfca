"""
C{qmqpd-tx postqueue}: look at the queue, and try it again.

C{-p} and C{-j} read the queue folders, whether the service is up or down, and never change anything. What
comes or goes meanwhile may be shown twice or not at all; a file that cannot be understood is named on
standard error, the listing goes on, and the status is 65. C{-f} and C{-i} ask the running service.

Exit status: 0 done; 64 wrong usage; 65 a queue file is damaged; 69 the mail system is down, or the message
is not there; 75 the queue cannot be read now; 77 no permission; 78 wrong configuration.

Answers to: postqueue(1).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from qmqpd_tx.admin.client import ServiceDown, request
from qmqpd_tx.admin.codec import ControlError
from qmqpd_tx.admin.context import CommandError, Context, Exit
from qmqpd_tx.admin.listing import ListedMessage, as_json, plain, printable
from qmqpd_tx.admin.reading import listed_messages

_QUEUE_ID = re.compile(r"[0-9A-Za-z]{1,64}")
"""What may be a queue id, of this program or of Postfix."""


@click.command("postqueue")
@click.option("-p", "plainly", is_flag=True, help="List the queue, as mailq does.")
@click.option("-j", "in_json", is_flag=True, help="List the queue, one JSON object a message.")
@click.option("-f", "flush", is_flag=True, help="Try all deferred mail now.")
@click.option("-i", "queue_id", metavar="ID", help="Try one deferred message now.")
@click.pass_obj
def postqueue_command(
    context: Context, plainly: bool, in_json: bool, flush: bool, queue_id: str | None
) -> int:
    """List the mail queue, or try it again: exactly one of -p, -j, -f, -i."""
    if [plainly, in_json, flush, queue_id is not None].count(True) != 1:
        raise click.UsageError("exactly one of -p, -j, -f and -i ID is needed")
    if queue_id is not None and _QUEUE_ID.fullmatch(queue_id) is None:
        raise CommandError(f'cannot flush queue ID - invalid name: "{printable(queue_id)}"', Exit.USAGE)
    folder = Path(context.config().string("queue_directory"))
    if flush:
        ask(folder, "flush")
    elif queue_id is not None:
        ask(folder, "deliver_now", queue_id=queue_id)
    else:
        return show(folder, in_json)
    return int(Exit.OK)


def ask(folder: Path, command: str, **members: Any) -> None:
    """
    Have the running service do something.

    @raise CommandError: it is down, or refuses.
    """
    try:
        request(folder, command, **members)
    except ServiceDown as problem:
        raise CommandError(f"cannot flush mail queue - {problem}", Exit.UNAVAILABLE) from problem
    except ControlError as problem:
        raise CommandError(printable(str(problem)), Exit.UNAVAILABLE) from problem


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
