"""
C{qmqpd-tx postkick}: send a request to a service of the running mail system.

Takes a class, a service and a request. There is one service that takes requests, C{public qmgr}, and its
requests are the letters of qmgr(8): D, I, A, F and W. They are handed over as they are: what is no such
letter is the service's to ignore, with a warning in its log. An empty request reaches nobody.

Exit status: 0 the request was handed over; 1 anything else, with a line on standard error.

Answers to: postkick(1).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from qmqpd_tx.admin.client import TRIGGER_SOCKET, ServiceDown, trigger
from qmqpd_tx.admin.context import CommandError, Context, Exit, FatalError
from qmqpd_tx.admin.listing import printable

SERVICES = {("public", "qmgr"): TRIGGER_SOCKET}
"""Who takes requests, by class and service: the socket, under C{queue_directory}."""

REQUEST_LIMIT = 4096
"""The longest request, in bytes: the queue manager reads no more of a client."""

_USAGE = "usage: qmqpd-tx [-c config_dir] postkick [-v] class service request"


@click.command("postkick", context_settings={"help_option_names": ["--help"], "ignore_unknown_options": True})
@click.option("-v", "verbose", count=True, help="Say on standard error what is done.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="CLASS SERVICE REQUEST")
@click.pass_obj
def postkick_command(context: Context, verbose: int, arguments: Sequence[str]) -> int:
    """Send a request to a service, as in: postkick public qmgr FAD.

    The service is public qmgr. The letters of a request: D, scan the deferred queue for mail that is due; I,
    scan the incoming queue; A, let the next scan of the deferred queue take all mail, due or not; F, try
    destinations that are out of order, too.
    """
    if len(arguments) != 3:
        raise FatalError("postkick", _USAGE)
    kind, service, request = arguments
    try:
        config = context.config()
    except CommandError as problem:
        raise FatalError("postkick", problem.message) from problem
    name = printable(f"class {kind} service {service}")
    socket = SERVICES.get((kind, service))
    if socket is None:
        raise FatalError("postkick", f"Cannot contact {name} - there is only public qmgr", "warning")
    data = os.fsencode(request)
    if len(data) > REQUEST_LIMIT:
        text = f"a request of {len(data)} bytes is too long; at most {REQUEST_LIMIT} are read"
        raise FatalError("postkick", text)
    folder = Path(config.string("queue_directory"))
    if verbose:
        click.echo(f"postkick: {len(data)} bytes to {folder / socket}", err=True)
    if data:
        try:
            trigger(folder, data, config.seconds("trigger_timeout"))
        except ServiceDown as problem:
            perhaps = "perhaps the " if str(problem) == "mail system is down" else ""
            raise FatalError(
                "postkick", f"Cannot contact {name} - {perhaps}{problem}", "warning"
            ) from problem
    return int(Exit.OK)
