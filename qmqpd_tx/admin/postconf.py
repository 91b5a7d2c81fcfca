"""
C{qmqpd-tx postconf}: show what a configuration says, in postconf(1)'s format.

Takes names of parameters, or with C{-M} of services; gives C{name = value} lines on standard output
and warnings on standard error. Reads main.cf and master.cf, writes nothing. The exit status is 0, with
warnings too, and 78 when a file cannot be read or understood. A configuration that is too wrong to
run is shown all the same, with a warning that says what is wrong.

Answers to: postconf(1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from attrs import evolve

from qmqpd_tx.admin.context import CommandError, Exit, default_config_dir
from qmqpd_tx.config.host import Host
from qmqpd_tx.config.load import checked, load_raw
from qmqpd_tx.config.raw import RawConfig
from qmqpd_tx.config.show import Layout, Shown, Which, plain, show_parameters, show_services
from qmqpd_tx.interfaces import ConfigError


@click.command("postconf", context_settings={"help_option_names": ["--help"]})
@click.option("-d", "defaults", is_flag=True, help="Show defaults instead of what is set.")
@click.option("-n", "only_set", is_flag=True, help="Show only what main.cf sets.")
@click.option("-h", "values", is_flag=True, help="Show values without names.")
@click.option("-H", "labels", is_flag=True, help="Show names without values.")
@click.option("-x", "expanded", is_flag=True, help="Replace $name in values.")
@click.option(
    "-M", "services", is_flag=True, help="Show the services of master.cf; name them service[/type]."
)
@click.option(
    "-o", "overrides", multiple=True, metavar="NAME=VALUE", help="Show as if main.cf had this setting."
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.pass_context
def postconf_command(
    ctx: click.Context,
    defaults: bool,
    only_set: bool,
    values: bool,
    labels: bool,
    expanded: bool,
    services: bool,
    overrides: Sequence[str],
    names: Sequence[str],
) -> None:
    """Show configuration parameters, or with -M services, as Postfix's postconf prints them."""
    if defaults and only_set:
        raise click.UsageError("specify one of -d and -n")
    if values and labels:
        raise click.UsageError("specify one of -h and -H")
    if services and (defaults or only_set or values or labels):
        raise click.UsageError("-d, -n, -h and -H are about main.cf: leave -M out")
    for name in names:
        if "=" in name:
            raise click.UsageError(f"{plain(name)}: postconf only shows; change main.cf with an editor")
    which = Which.DEFAULT if defaults else Which.SET if only_set else Which.ACTUAL
    layout = Layout.VALUE if values else Layout.NAME if labels else Layout.BOTH
    try:
        config = _load(_directory(ctx), overrides, defaults and not services)
        if services:
            output = show_services(config, names, expanded)
        else:
            output = show_parameters(config, names, which, layout, expanded)
    except ConfigError as error:
        raise CommandError(plain(str(error)), Exit.CONFIG) from error
    _print(output)
    if not defaults:
        _check(config)


def _directory(ctx: click.Context) -> Path:
    found = getattr(ctx.obj, "config_dir", None)
    return Path(default_config_dir()) if found is None else Path(found)


def _load(directory: Path, overrides: Sequence[str], defaults_only: bool) -> RawConfig:
    # Defaults can be shown where nothing is configured yet, or nothing that makes sense.
    config = load_raw(
        directory / "main.cf", evolve(Host.here(), process_name="postconf"), defaults=defaults_only
    )
    pairs = {}
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"-o {plain(override)}: write -o name=value")
        pairs[name.strip()] = value.strip()
    settings = {} if defaults_only else config.overridden(pairs, "-o option")
    return evolve(config, settings=settings)


def _print(output: Shown) -> None:
    for warning in output.warnings:
        click.echo(f"postconf: warning: {plain(warning)}", err=True)
    for line in output.lines:
        click.echo(line)


def _check(config: RawConfig) -> None:
    """Say what would keep this configuration from running."""
    try:
        checked(config)
    except ConfigError as error:
        click.echo(f"postconf: warning: {plain(str(error))}", err=True)
