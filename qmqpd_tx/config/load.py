"""
From files to a L{Config<qmqpd_tx.config.model.Config>}.

Reads main.cf and, when there is one beside it, master.cf; else the built-in services count. Reading
happens here and nowhere else in the room. A file that cannot be read, or makes no sense, raises
L{ConfigError<qmqpd_tx.interfaces.ConfigError>}, naming it.

Answers to: Postfix's C{-c config_dir}.
"""

from __future__ import annotations

import os

from qmqpd_tx.config.default_master import DEFAULT_MASTER_CF
from qmqpd_tx.config.host import Host
from qmqpd_tx.config.main_cf import parse_main_cf, repeated_entries
from qmqpd_tx.config.master_cf import effective, parse_master_cf
from qmqpd_tx.config.model import Config
from qmqpd_tx.config.raw import READ_ONLY, RawConfig
from qmqpd_tx.interfaces import ConfigError


def config_from_text(
    text: str,
    master: str | None = None,
    directory: str = ".",
    *,
    main_file: str = "main.cf",
    master_file: str = "master.cf",
    host: Host | None = None,
) -> Config:
    """
    @param text: main.cf.
    @param master: master.cf; L{None} for the built-in one.
    @param directory: the folder that C{config_directory} tells.
    @param main_file: what to call main.cf in messages.
    @param master_file: what to call master.cf in messages.
    @param host: facts for defaults; L{None} for this host.
    @return: the checked configuration.
    @raise ConfigError: a line or a value is bad.
    """
    return checked(raw_from_text(text, master, directory, main_file, master_file, host))


def raw_from_text(
    text: str,
    master: str | None = None,
    directory: str = ".",
    main_file: str = "main.cf",
    master_file: str = "master.cf",
    host: Host | None = None,
) -> RawConfig:
    """
    As L{config_from_text}, but checks the syntax only.
    """
    if master is None:
        lines = parse_master_cf(DEFAULT_MASTER_CF, "built-in master.cf")
    else:
        lines = parse_master_cf(master, master_file)
    settings = parse_main_cf(text, main_file)
    ignored = {name: settings.pop(name) for name in READ_ONLY if name in settings}
    return RawConfig(
        settings=settings,
        services=effective(lines),
        lines=lines,
        directory=directory,
        host=Host.here() if host is None else host,
        file=main_file,
        has_master_cf=master is not None,
        ignored=ignored,
        repeated=tuple(repeated_entries(text, main_file)),
    )


def checked(raw: RawConfig) -> Config:
    """
    @return: the same configuration with its values checked and converted.
    @raise ConfigError: a value is bad.
    """
    return Config(
        settings=raw.settings,
        services=raw.services,
        lines=raw.lines,
        directory=raw.directory,
        host=raw.host,
        file=raw.file,
        has_master_cf=raw.has_master_cf,
        ignored=raw.ignored,
        repeated=raw.repeated,
    )


def load_config(main_cf_path: str | os.PathLike[str]) -> Config:
    """
    @param main_cf_path: the path of main.cf; master.cf is looked for in the same folder.
    @return: the checked configuration.
    @raise ConfigError: a file cannot be read, or a line or a value is bad.
    """
    return checked(load_raw(main_cf_path))


def config_files(main_cf_path: str | os.PathLike[str]) -> tuple[str, str]:
    """
    @return: the files that L{load_config} reads: main.cf, and the master.cf beside it, if there is one.
    """
    directory = os.path.dirname(os.path.abspath(main_cf_path))
    return os.fspath(main_cf_path), os.path.join(directory, "master.cf")


def load_raw(
    main_cf_path: str | os.PathLike[str], host: Host | None = None, defaults: bool = False
) -> RawConfig:
    """
    As L{load_config}, but checks the syntax only.

    @param defaults: whether only defaults are wanted: main.cf is not read, and does not have to be there.
    """
    main_path, master_path = config_files(main_cf_path)
    return raw_from_text(
        "" if defaults else _read(main_path),
        _read(master_path) if os.path.lexists(master_path) else None,
        os.path.dirname(master_path),
        main_path,
        master_path,
        host,
    )


def _read(path: str | os.PathLike[str]) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{os.fspath(path)}: cannot be read: {reason}: check the name and the permissions"
        ) from None
