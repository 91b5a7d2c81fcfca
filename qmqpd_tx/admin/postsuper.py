"""
C{qmqpd-tx postsuper}: hold, release, delete and requeue messages.

Takes options in any number, and obeys them in their order; ids may come from standard input. A running
service is asked to do it; without one the command takes the service's lock and does it to the files. Only
root and the owner of the queue may: root becomes that owner first, so that nothing in the queue ends up as
root's.

What is no queue id gets a warning, what is not in the queue is passed over in silence, and neither fails:
messages come and go while a list of ids is worked off. Each change of a single message, and how many there
were of each kind, is said on standard error and in the mail log.

C{-p}, C{-s} and C{-S} (unfinished files, files in the wrong place), and a command without options, find
nothing to do: every start of the service sees to both. C{-v} says so.

Exit status: 0, however little there was to do; 1 with a line on standard error when the command could not
go on.

Answers to: postsuper(1).
"""

from __future__ import annotations

import os
import pwd
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import click

from qmqpd_tx.admin.context import CommandError, Context, Exit, FatalError
from qmqpd_tx.admin.listing import printable
from qmqpd_tx.admin.steps import Request, UsageError, batches, parse
from qmqpd_tx.admin.superintend import DONE, SLICE, ISuperintendent, Refused, counted, superintendent
from qmqpd_tx.spool.offline import Change

SHOWN = 100
"""How much of an impossible queue id is shown, in characters."""


@click.command(
    "postsuper",
    context_settings={
        "help_option_names": ["--help"],
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTION ID]... [QUEUE]...")
@click.pass_obj
def postsuper_command(context: Context, arguments: Sequence[str]) -> int:
    """Change messages in the queue.

    \b
    -d ID  delete a message
    -h ID  put a message on hold: no delivery is tried any more
    -H ID  release a message from hold
    -r ID  requeue a message: it is routed anew and tried at once
    -v     say more

    ID may be ALL, for all messages of these queues, or -, to read ids from standard input, one a line.
    Options may be repeated and are obeyed in their order. QUEUE is hold, incoming, active or deferred;
    without one, -d and -r look in all of these, -h in all but hold, -H in hold.
    """
    try:
        request = parse(arguments)
    except UsageError as problem:
        raise FatalError("postsuper", printable(str(problem))) from problem
    try:
        config = context.config()
        become_owner(Path(config.string("queue_directory")))
        queue = superintendent(config, warn)
    except (CommandError, Refused) as problem:
        raise FatalError("postsuper", str(problem)) from problem
    try:
        superintend(request, queue)
    except Refused as problem:
        raise FatalError("postsuper", printable(str(problem))) from problem
    finally:
        queue.close()
    return int(Exit.OK)


def superintend(request: Request, queue: ISuperintendent) -> None:
    """
    Do what a command line asks for, and say what was done; of what was cut short, too.

    @raise Refused: it could not go on.
    """
    count: Counter[Change] = Counter()
    if request.verbose and not request.steps:
        say("structure and unfinished files are seen to at each start of the service: nothing to do")
    try:
        for change, ids in batches(request.steps, standard_input, invalid, SLICE):
            if request.verbose:
                say(f"{change.value}: {'all messages' if ids is None else f'{len(ids)} ids'}")
            if ids is None:
                for more in queue.change_all(change, request.queues):
                    count[change] += more
                    if request.verbose:
                        say(f"{change.value}: {count[change]} so far")
            else:
                done = queue.change(change, ids, request.queues)
                count[change] += len(done)
                if done:
                    say(*(f"{queue_id}: {DONE[change]}" for queue_id in done))
    finally:
        counts = [(change, count[change]) for change in request.asked()]
        for change, number in counts:
            say(counted(change, number))
    queue.report(counts)


def become_owner(folder: Path) -> None:
    """
    Go on as the owner of the queue.

    @raise CommandError: this is neither root nor that owner.
    """
    try:
        owner = folder.stat()
    except OSError as problem:
        raise CommandError(f"{folder}: {problem.strerror}; check queue_directory") from problem
    if os.geteuid() == owner.st_uid:
        return
    try:
        name = pwd.getpwuid(owner.st_uid).pw_name
    except KeyError:
        name = ""
    if os.geteuid() != 0:
        who = name or f"user {owner.st_uid}"
        raise CommandError(f"use of this command is reserved for the superuser and {who}, who has the queue")
    if name:
        os.initgroups(name, owner.st_gid)
    else:
        os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def standard_input() -> BinaryIO:
    """
    @return: where ids come from.
    """
    # Closed from the start, as with `<&-`: there are no ids.
    return open(os.devnull, "rb") if sys.stdin is None else sys.stdin.buffer


def invalid(name: str) -> None:
    """
    Warn of what cannot be a queue id.
    """
    shown = printable(name[:SHOWN]) + ("..." if len(name) > SHOWN else "")
    warn(f"invalid mail queue id: {shown}")


def warn(text: str) -> None:
    """
    Say that something is not right, but that it goes on.
    """
    say(f"warning: {printable(text)}")


def say(*texts: str) -> None:
    """
    Lines on standard error.
    """
    click.echo("\n".join(f"postsuper: {text}" for text in texts), err=True)
