"""
The C{qmqpd-tx} command: a group of commands named after Postfix's.

Each command's module is imported when it is used, so that C{send} in a script does not pay for the
others. Exit statuses are those of sysexits(3): 0 done, 64 wrong usage, 69 something needed is not
there, 75 try again, 78 wrong configuration; a command may document others.

Answers to: postqueue(1), postsuper(1), postkick(1), postconf(1), postmap(1), qmail-qmqpc.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from qmqpd_tx.admin.context import CommandError, Context, Exit, default_config_dir

COMMANDS: dict[str, tuple[str, str]] = {
    "postconf": ("qmqpd_tx.admin.postconf", "postconf_command"),
    "postkick": ("qmqpd_tx.admin.postkick", "postkick_command"),
    "postmap": ("qmqpd_tx.admin.postmap", "postmap_command"),
    "postqueue": ("qmqpd_tx.admin.postqueue", "postqueue_command"),
    "postsuper": ("qmqpd_tx.admin.postsuper", "postsuper_command"),
    "send": ("qmqpd_tx.admin.send", "send_command"),
    "simulate": ("qmqpd_tx.admin.simulate", "simulate_command"),
}
"""The commands: where each is found."""


class LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """
        @return: the names of all commands, sorted.
        """
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """
        @return: a command, or L{None} when there is none of that name.
        """
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(importlib.import_module(place[0]), place[1])
        if not isinstance(command, click.Command):
            raise TypeError(f"{place[0]}.{place[1]} is no command")
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "config_dir",
    metavar="CONFIG_DIR",
    help="The folder of main.cf and master.cf. [default: $MAIL_CONFIG, or /etc/qmqpd_tx]",
)
@click.pass_context
def group(ctx: click.Context, config_dir: str | None) -> None:
    """Look after a qmqpd_tx mail system: its queue, its configuration, and sending by hand."""
    ctx.obj = Context(config_dir=Path(config_dir or default_config_dir()))


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command line.

    @param arguments: without the program's name; by default this process's.
    @return: the exit status.
    """
    try:
        result = group.main(
            args=None if arguments is None else list(arguments),
            prog_name="qmqpd-tx",
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as problem:
        problem.show()
        return int(Exit.USAGE)
    except click.UsageError as problem:
        problem.show()
        return int(Exit.USAGE)
    except CommandError as problem:
        click.echo(problem.line(), err=True)
        return int(problem.status)
    except click.ClickException as problem:
        click.echo(f"qmqpd-tx: {problem.format_message()}", err=True)
        return problem.exit_code
    except click.Abort:
        click.echo("qmqpd-tx: interrupted", err=True)
        return 130
    except OSError as problem:
        # Errors of other files are the commands' to explain: this is standard output.
        click.echo(f"qmqpd-tx: {problem.strerror}", err=True)
        # What could not be written must not be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return int(Exit.TEMPORARY)
    return result if isinstance(result, int) else int(Exit.OK)


def main() -> NoReturn:
    """The console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Mail has addresses and replies in any script; the terminal may know one.
        sys.stdout.reconfigure(errors="replace")
    sys.exit(run())


if __name__ == "__main__":
    main()
