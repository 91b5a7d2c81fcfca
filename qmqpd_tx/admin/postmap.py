"""
C{qmqpd-tx postmap}: look up in tables, and build and change those in indexed files.

Takes C{type:name}; C{hash}, C{btree}, C{lmdb} and C{cdb} are built from the text file C{name}. Builds are
complete or leave the old file as it is. As root it does not do with the rights of root what the owner of the
text file could not do, unless C{-o} says so. The exit status is Postfix's: 0 found or done, 1 not found or
failed, with one line on standard error that says why. Tables on servers are asked through a reactor of the
command's own.

Answers to: postmap(1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import provider

from qmqpd_tx.admin.context import Context, Exit, default_config_dir
from qmqpd_tx.admin.mapwork import Options, TableCommand, fatal, warn
from qmqpd_tx.config.model import Config
from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.indexed import Ends
from qmqpd_tx.tables.wording import printable
from qmqpd_tx.tables.words import encode


@provider(ILogObserver)
def _observe(event: Any) -> None:
    """Show what tables warn of."""
    if event.get("log_level", LogLevel.info) >= LogLevel.warn:
        warn(printable(encode(formatEvent(event)), 1000))


@click.command("postmap", context_settings={"help_option_names": ["--help"]})
@click.option("-b", "body", is_flag=True, help='With "-q -": the lines of a message body are the keys.')
@click.option("-c", "config_dir", metavar="CONFIG_DIR", help="The folder of main.cf.")
@click.option("-d", "delete", metavar="KEY", help="Remove an entry; - reads keys from standard input.")
@click.option("-f", "exact", is_flag=True, help="Do not fold keys to lower case.")
@click.option("-F", "files", is_flag=True, help="Values are names of files whose content is meant.")
@click.option("-h", "headers", is_flag=True, help='With "-q -": the headers of a message are the keys.')
@click.option("-i", "incremental", is_flag=True, help="Add entries from standard input.")
@click.option("-m", "mime", is_flag=True, help="(not here) With -b and -h: look into MIME.")
@click.option("-N", "nulls", is_flag=True, help="Keys and values end with a NUL.")
@click.option("-n", "no_nulls", is_flag=True, help="Keys and values do not end with a NUL.")
@click.option("-o", "keep_root", is_flag=True, help="Use the rights of root also for somebody else's file.")
@click.option("-p", "default_mode", is_flag=True, help="New files get mode 0644, not that of the text.")
@click.option("-q", "query", metavar="KEY", help="Look up; - reads keys from standard input.")
@click.option("-r", "replace", is_flag=True, help="Replace existing entries without a warning.")
@click.option("-s", "sequence", is_flag=True, help="List all entries of the first table.")
@click.option("-u", "no_utf8", is_flag=True, help="Do not ask for UTF-8.")
@click.option("-U", "force_utf8", is_flag=True, help="Ask for UTF-8 also with -b and -h.")
@click.option("-v", "verbose", is_flag=True, help="(not here) More logging.")
@click.option("-w", "skip", is_flag=True, help="Leave existing entries as they are without a warning.")
@click.argument("tables", nargs=-1, metavar="[TYPE:]NAME...")
@click.pass_context
def postmap_command(
    ctx: click.Context,
    body: bool,
    config_dir: str | None,
    delete: str | None,
    exact: bool,
    files: bool,
    headers: bool,
    incremental: bool,
    mime: bool,
    nulls: bool,
    no_nulls: bool,
    keep_root: bool,
    default_mode: bool,
    query: str | None,
    replace: bool,
    sequence: bool,
    no_utf8: bool,
    force_utf8: bool,
    verbose: bool,
    skip: bool,
    tables: Sequence[str],
) -> int:
    """Look up in Postfix tables (-q, -s), or build hash, btree, lmdb and cdb files, as Postfix's postmap."""
    if mime:
        raise fatal("-m: MIME is not looked into here; leave -m out, and give the part's headers with -h")
    if verbose:
        raise fatal("-v: there is no verbose mode; leave -v out")
    if sum((query is not None, delete is not None, sequence)) > 1:
        raise fatal("specify only one of -s -q or -d")
    if (body or headers) and query != "-":
        raise fatal('specify -b -h or -m only with "-q -"')
    if not tables:
        raise fatal("usage: postmap [-bfFhinNoprsuUw] [-c config_dir] [-d key] [-q key] [map_type:]file...")
    config = _config(ctx, config_dir)
    utf8 = not no_utf8 and config.boolean("smtputf8_enable") and (force_utf8 or not (body or headers))
    options = Options(
        body=body,
        files=files,
        fold=not exact,
        headers=headers,
        incremental=incremental,
        keep_root=keep_root,
        default_mode=default_mode,
        replace=replace and not skip,
        skip=skip,
        utf8=utf8,
        ends=Ends.NUL if nulls else Ends.NOTHING if no_nulls else Ends.EITHER,
    )
    command = TableCommand(config, options)
    globalLogPublisher.addObserver(_observe)
    try:
        if query is not None:
            return command.query(query, tables)
        if delete is not None:
            return command.delete(delete, tables)
        if sequence:
            return command.walk(tables[0])
        for table in tables:
            command.build(table)
    except (ConfigError, TableError) as error:
        raise fatal(error) from error
    finally:
        command.close()
        globalLogPublisher.removeObserver(_observe)
    return Exit.OK


def _config(ctx: click.Context, config_dir: str | None) -> Config:
    found = ctx.obj if isinstance(ctx.obj, Context) else Context(Path(default_config_dir()))
    return cast(Config, (Context(Path(config_dir)) if config_dir else found).config())
