"""
The twistd plugin's side: C{twistd qmqp --config FILE [--listen ENDPOINT]...}.

Takes the command line and the global reactor, and is the only module that knows either; gives a
L{MailSystem<qmqpd_tx.mailsystem.MailSystem>}. Nobody imports this but twistd.

How it fails: a configuration that cannot be used ends start-up with one line and a non-zero exit status.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from twisted.application.service import Service
from twisted.python import usage

from qmqpd_tx.interfaces import ConfigError, SpoolError
from qmqpd_tx.mailsystem import MailSystem
from qmqpd_tx.startup import Invocation, fatal_line


class Options(usage.Options):
    """The command line of C{twistd qmqp}."""

    synopsis = "[--config FILE] [--listen ENDPOINT]..."
    optParameters = [  # noqa: RUF012 - Twisted's way
        ["config", "c", "/etc/qmqpd_tx/main.cf", "The main.cf to use; master.cf is looked for beside it."],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """
        A Twisted endpoint to take QMQP on, as in tcp:628:interface=127.0.0.1; may be given more than
        once. By default the qmqpd lines of master.cf, or port 628 on inet_interfaces.
        """
        self["listen"].append(endpoint)

    opt_l = opt_listen


def invocation(options: Options) -> Invocation:
    """
    @return: what the command line says, twistd's part included.
    """
    twistd: Mapping[str, Any] = options.parent or {}
    return Invocation(
        # Absolute now: twistd changes the working directory.
        config=os.path.abspath(options["config"]),
        listen=tuple(options["listen"]),
        foreground=bool(twistd.get("nodaemon")),
        pid_file=twistd.get("pidfile") or "",
        owner=(twistd.get("uid"), twistd.get("gid")),
        chroot=bool(twistd.get("chroot")),
        to_syslog=bool(twistd.get("syslog")),
        own_log=not (twistd.get("logger") or twistd.get("logfile")),
    )


def makeService(options: Options) -> Service:
    """
    @param options: the parsed command line.
    @return: the mail system.
    @raise SystemExit: the configuration cannot be used; the text says why, in one line.
    """
    from twisted.internet import reactor

    try:
        return MailSystem(invocation(options), reactor)
    except (ConfigError, SpoolError) as problem:
        raise SystemExit(fatal_line(str(problem))) from None
