"""
What a postsuper command line asks for, step by step. Pure, but for reading queue ids from a stream.

Takes arguments; gives a L{Request}: options in the order in which they stand, because they are obeyed in
that order. Ids come from anywhere: none is more than a name to look for, the shape of each is checked, and
a line of any length costs the memory of a short one.

Answers to: the command line of postsuper(1).
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import BinaryIO

from attrs import frozen

from qmqpd_tx.message import Queue
from qmqpd_tx.spool.offline import Change

CHANGES = {"d": Change.DELETE, "h": Change.HOLD, "H": Change.RELEASE, "r": Change.REQUEUE}
"""The options that change messages."""

ALL = "ALL"
"""In place of a queue id: all messages."""

STREAM = "-"
"""In place of a queue id: the ids are on standard input, one a line."""

QUEUES = {queue.value: queue for queue in (Queue.HOLD, Queue.INCOMING, Queue.ACTIVE, Queue.DEFERRED)}
"""The queues that may be named."""

WITHOUT_MESSAGES = frozenset({"bounce", "defer", "flush", "maildrop", "trace"})
"""What else may be named, as in Postfix. Nothing in these is a message here."""

QUEUE_ID = re.compile(r"[0-9A-Za-z]{1,64}")
"""What may be a queue id, of this program or of Postfix."""

LINE_LIMIT = 256
"""How much of a line is kept, in bytes. No queue id is that long."""

USAGE = (
    "usage: qmqpd-tx [-c config_dir] postsuper [-d queue_id (delete)] [-h queue_id (hold)] "
    "[-H queue_id (un-hold)] [-p (purge temporary files)] [-r queue_id (requeue)] [-s (structure fix)] "
    "[-v (verbose)] [queue...]"
)


class UsageError(Exception):
    """A command line that makes no sense; the text says why."""


@frozen(slots=True)
class Step:
    """
    One option.

    @ivar change: what to do.
    @ivar name: a queue id, L{ALL} or L{STREAM}.
    """

    change: Change
    name: str


@frozen(slots=True)
class Request:
    """
    One command line.

    @ivar steps: what to do to messages, in order.
    @ivar queues: where; L{None} is where each L{Change} looks by itself.
    @ivar verbose: how much to say.
    """

    steps: Sequence[Step]
    queues: Sequence[Queue] | None
    verbose: int

    def asked(self) -> list[Change]:
        """
        @return: what is to be done, each once, in the order of the report.
        """
        there = {step.change for step in self.steps}
        order = (Change.REQUEUE, Change.DELETE, Change.HOLD, Change.RELEASE)
        return [change for change in order if change in there]


def parse(arguments: Sequence[str]) -> Request:
    """
    @return: what the arguments of postsuper(1) ask for.
    @raise UsageError: they make no sense.
    """
    try:
        options, names = getopt.getopt(list(arguments), "d:e:f:h:H:pr:sSv")
    except getopt.GetoptError as problem:
        raise UsageError(f"{problem.msg}; {USAGE}") from problem
    steps = []
    verbose = 0
    for option, value in options:
        letter = option[1:]
        if letter in CHANGES:
            steps.append(Step(CHANGES[letter], value))
        elif letter in "ef":
            raise UsageError(f"{option}: forced expiration is not supported; use -d to remove the message")
        elif letter == "v":
            verbose += 1
    queues: list[Queue] = []
    for name in names:
        if name in QUEUES:
            queues.append(QUEUES[name])
        elif name not in WITHOUT_MESSAGES:
            raise UsageError(f"invalid directory name: {name}")
    return Request(steps, list(dict.fromkeys(queues)) if names else None, verbose)


def lines(stream: BinaryIO) -> Iterator[str]:
    """
    @return: the lines of a stream, each cut at L{LINE_LIMIT}, without their ends.
    """
    while line := stream.readline(LINE_LIMIT):
        rest = line
        while not rest.endswith(b"\n") and (rest := stream.readline(65536)):
            pass
        yield line.removesuffix(b"\n").decode("utf-8", "surrogateescape")


def batches(
    steps: Iterable[Step],
    stream: Callable[[], BinaryIO],
    invalid: Callable[[str], None],
    limit: int,
) -> Iterator[tuple[Change, list[str] | None]]:
    """
    Cut steps into pieces of work.

    @param stream: gives standard input; called when an id asks for it.
    @param invalid: called with what cannot be a queue id.
    @param limit: how many ids a piece may have.
    @return: what to do and the ids to do it to, or L{None} for all messages.
    """

    def named() -> Iterator[tuple[Change, str | None]]:
        for step in steps:
            if step.name == ALL:
                yield step.change, None
                continue
            for name in lines(stream()) if step.name == STREAM else (step.name,):
                if QUEUE_ID.fullmatch(name) is None:
                    invalid(name)
                else:
                    yield step.change, name

    for (change, everything), group in groupby(named(), lambda one: (one[0], one[1] is None)):
        if everything:
            yield change, None
            continue
        ids = (name for _, name in group if name is not None)
        for first in ids:
            yield change, [first, *islice(ids, limit - 1)]
