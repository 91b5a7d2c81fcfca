"""
What every command of C{qmqpd-tx} is given, and how it fails.

A command finds a L{Context} as C{click}'s context object. It fails with L{CommandError}, which carries
one clear line and an exit status of sysexits(3), as Postfix's commands do.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path

import click
from attrs import frozen

from qmqpd_tx.interfaces import ConfigError, IConfig

DEFAULT_CONFIG_DIR = "/etc/qmqpd_tx"
"""Where main.cf is looked for, without C{-c} and C{MAIL_CONFIG}."""


class Exit(enum.IntEnum):
    """Exit statuses: the names and numbers of sysexits(3), and what Postfix's own commands end with."""

    OK = 0
    FAILED = 1
    USAGE = 64
    DATA = 65
    UNAVAILABLE = 69
    SOFTWARE = 70
    TEMPORARY = 75
    NOPERM = 77
    CONFIG = 78


class CommandError(click.ClickException):
    """A command cannot do what it was asked for; the text says why and what to do."""

    def __init__(self, message: str, status: Exit = Exit.UNAVAILABLE) -> None:
        super().__init__(message)
        self.status = status

    def line(self) -> str:
        """
        @return: what to say on standard error.
        """
        return f"qmqpd-tx: {self.format_message()}"


class FatalError(CommandError):
    """
    The end of a command that fails as Postfix's does: the line begins with its own name, and the status is 1.
    """

    def __init__(self, program: str, message: str, level: str = "fatal") -> None:
        """
        @param program: as in C{postsuper}.
        @param level: C{fatal} or C{warning}, as Postfix has it.
        """
        super().__init__(message, Exit.FAILED)
        self._heading = f"{program}: {level}: "

    def line(self) -> str:
        """See L{CommandError.line}."""
        return self._heading + self.format_message()


@frozen(slots=True)
class Context:
    """
    The object of every command.

    @ivar config_dir: the folder of main.cf and master.cf.
    """

    config_dir: Path

    def config(self) -> IConfig:
        """
        @return: the configuration in C{config_dir}.
        @raise CommandError: main.cf cannot be read or used.
        """
        # Imported here: `--help` and `send` work without a configuration.
        from qmqpd_tx.config import load_config

        try:
            return load_config(os.fspath(self.config_dir / "main.cf"))
        except ConfigError as problem:
            raise CommandError(f"{problem} (-c names the configuration folder)", Exit.CONFIG) from problem


def default_config_dir() -> str:
    """
    @return: C{MAIL_CONFIG} from the environment, as for Postfix's commands, or L{DEFAULT_CONFIG_DIR}.
    """
    return os.environ.get("MAIL_CONFIG") or DEFAULT_CONFIG_DIR
