"""
How the service was started, and how a start-up that cannot go on ends. Part of the composition root.

A refusal is one line in the mail log, one line on standard error where somebody is there to read it, and a
non-zero exit status: twistd's own if that still waits for the answer, else the process's.
"""

from __future__ import annotations

import atexit

# Twisted's DNS imports this with the first name it sends: too late after --chroot.
import encodings.idna  # noqa: F401
import os
import pwd
import stat
import sys
from contextlib import suppress
from typing import Any, NoReturn

from attrs import frozen
from twisted.internet.error import ReactorNotRunning

from qmqpd_tx.events import Logger
from qmqpd_tx.intake import Owner
from qmqpd_tx.interfaces import ConfigError, IConfig
from qmqpd_tx.maillog import MailLog

log = Logger(namespace="qmqpd_tx.master")


@frozen(slots=True)
class Invocation:
    """
    What the command line says.

    @ivar config: the absolute path of main.cf.
    @ivar listen: C{--listen}, each.
    @ivar foreground: C{-n}.
    @ivar pid_file: C{--pidfile}, relative to the working folder that twistd changes to.
    @ivar owner: C{--uid} and C{--gid}, as numbers.
    @ivar chroot: whether there is a C{--chroot}.
    @ivar to_syslog: C{--syslog}.
    @ivar own_log: whether the mail log is the log of the whole process; not with C{--logfile}.
    """

    config: str
    listen: tuple[str, ...]
    foreground: bool
    pid_file: str
    owner: Owner
    chroot: bool
    to_syslog: bool
    own_log: bool

    def log_file(self, config: IConfig) -> str:
        """
        @return: where the mail log goes; C{""} for syslog.
        """
        if self.to_syslog:
            return ""
        return config.string("maillog_file") or ("/dev/stderr" if self.foreground else "")


def fatal_line(text: str) -> str:
    """
    @return: what to say on standard error.
    """
    return f"twistd qmqp: fatal: {' '.join(text.splitlines())}"


def check_surroundings(invocation: Invocation) -> None:
    """
    See, after C{--chroot}, whether Twisted finds what it needs.

    @raise ConfigError: it does not.
    """
    if invocation.chroot and not os.path.exists(os.devnull):
        raise ConfigError(f"--chroot: there is no {os.devnull} in it: make one (mknod -m 666 null c 1 3)")
    uid = invocation.owner[0]
    if uid is None:
        return
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise ConfigError(f"--uid: there is no user {uid} in /etc/passwd, or none in --chroot's") from None


def give_log(invocation: Invocation, config: IConfig) -> None:
    """
    Give a log file of root's to the user that the process is going to be, so that it can be opened again at
    SIGHUP.
    """
    with suppress(OSError):
        give_away(invocation.log_file(config), invocation.owner)


def give_away(path: str, owner: Owner) -> None:
    """
    Give a file or a folder of root's to the user that the process is going to be; nothing else of root's, and
    nothing at all when it is not root that starts.

    What is looked at and what is given are the same, and neither is what a link leads to: after the first
    start the name may be in a folder where that user puts links.

    @raise OSError: it cannot be given, or is a symbolic link.
    """
    uid, gid = owner
    if uid is None or os.geteuid() != 0:
        return
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        single = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
        if found.st_uid == 0 and (single or stat.S_ISDIR(found.st_mode)):
            os.fchown(fd, uid, -1 if gid is None else gid)
    finally:
        os.close(fd)


class Refusal:
    """
    Ends a start-up that cannot go on.
    """

    def __init__(self, invocation: Invocation, config: IConfig, maillog: MailLog, reactor: Any) -> None:
        """
        @param config: for where the log goes.
        @param maillog: told first.
        @param reactor: stopped when it runs.
        """
        self._invocation = invocation
        self._maillog = maillog
        self._reactor = reactor
        # Where the log goes to standard error anyway, a second line there would say nothing new.
        said = invocation.own_log and invocation.log_file(config) == "/dev/stderr"
        self._to_stderr = invocation.foreground and not said

    def refuse(self, text: str) -> NoReturn:
        """
        End start-up while twistd can still tell who started it.

        @raise SystemExit: in the foreground.
        @raise ConfigError: in a daemon, where twistd tells the parent process.
        """
        self._say(text)
        if not self._invocation.foreground:
            raise ConfigError(text)
        if self._invocation.pid_file:
            # twistd removes it only when it ends in another way.
            with suppress(OSError):
                os.unlink(self._invocation.pid_file)
        raise SystemExit(1)

    def give_up(self, text: str) -> None:
        """
        End start-up when it is too late for L{refuse}.
        """
        self._say(text)
        # twistd ends with status 0 whatever the reactor did; its pid file is gone by then.
        atexit.register(_exit_failed)

        def stop() -> None:
            with suppress(ReactorNotRunning):
                self._reactor.stop()

        self._reactor.callWhenRunning(stop)

    def _say(self, text: str) -> None:
        log.critical("{text}", text=text)
        self._maillog.flush()
        # Not sys.stderr, which twistd has given to the log.
        if self._to_stderr and sys.__stderr__ is not None:
            print(fatal_line(text), file=sys.__stderr__, flush=True)


def _exit_failed() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(1)
