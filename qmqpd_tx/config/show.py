"""
A configuration in postconf(1)'s output format.

Takes a L{RawConfig<qmqpd_tx.config.raw.RawConfig>} and what to show, gives lines for standard output
and warnings. Pure. An expression that cannot be expanded raises
L{ConfigError<qmqpd_tx.interfaces.ConfigError>}.

Answers to: postconf(1), C{-d}, C{-n}, C{-h}, C{-H}, C{-x} and C{-M}.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

from attrs import frozen

from qmqpd_tx.config.expression import references
from qmqpd_tx.config.lines import WHITE
from qmqpd_tx.config.main_cf import shown
from qmqpd_tx.config.master_cf import MasterService
from qmqpd_tx.config.parameters import PARAMETERS
from qmqpd_tx.config.raw import RawConfig
from qmqpd_tx.config.warn import unknown, unused_overrides, unused_settings

_COLUMNS = (11, 17, 25, 33, 41, 49, 57)
"""Where the columns after the first one start, unless a longer one before pushes them on."""


class Which(enum.Enum):
    """Which values to show."""

    ACTUAL = "actual"
    DEFAULT = "default"
    SET = "set"


class Layout(enum.Enum):
    """How much of a line to show."""

    BOTH = "name = value"
    VALUE = "value"
    NAME = "name"


@frozen(slots=True)
class Shown:
    """
    What to print.

    @ivar lines: for standard output.
    @ivar warnings: for standard error.
    """

    lines: Sequence[str]
    warnings: Sequence[str]


def show_parameters(
    config: RawConfig,
    names: Sequence[str] = (),
    which: Which = Which.ACTUAL,
    layout: Layout = Layout.BOTH,
    expanded: bool = False,
) -> Shown:
    """
    @param names: which parameters, in this order; none: all that fit, sorted.
    @param which: which of their values.
    @param layout: how much of them.
    @param expanded: whether to replace C{$name} expressions.
    @return: lines and warnings.
    @raise ConfigError: an expression is malformed.
    """
    warnings = [] if which is Which.DEFAULT else list(config.repeated)
    unused = set(unknown(config.settings, config.services))
    if not names:
        names = sorted(_all(config, which, unused))
    lines = []
    for name in names:
        value = _default(config, name) if which is Which.DEFAULT else config.lookup(name)
        if value is None or (name in unused and which is not Which.DEFAULT):
            warnings.append(f"{shown(name)}: unknown parameter")
            continue
        if which is Which.SET and not (config.is_set(name) or _moved(config, name)):
            continue
        lines.append(_line(name, config.expand(value) if expanded else value, layout))
    if which is not Which.DEFAULT:
        warnings.extend(_undefined(config))
        warnings.extend(unused_settings(config.settings, config.services))
    return Shown(lines, warnings)


def _all(config: RawConfig, which: Which, unused: set[str]) -> set[str]:
    if which is Which.DEFAULT:
        return set(config.names())
    found = {name for name in config.settings if name not in unused}
    if which is Which.ACTUAL:
        found.update(config.names())
    elif _moved(config, "config_directory"):
        found.add("config_directory")
    return found


def _moved(config: RawConfig, name: str) -> bool:
    """Whether C{-c} named another folder, which counts as a setting."""
    return name == "config_directory" and config.directory != PARAMETERS[name].default


def _default(config: RawConfig, name: str) -> str | None:
    return PARAMETERS[name].default if name == "config_directory" else config.default(name)


def _line(name: str, value: str, layout: Layout) -> str:
    value = plain(" ".join(_split(value)))
    match layout:
        case Layout.VALUE:
            return value
        case Layout.NAME:
            return name
        case Layout.BOTH:
            return f"{name} = {value}".rstrip(" ")


def _split(value: str) -> Iterator[str]:
    for white in WHITE:
        value = value.replace(white, " ")
    return (word for word in value.split(" ") if word)


def plain(text: str) -> str:
    """
    @return: text without control characters, which a terminal might obey, and without halves of
        characters, which cannot be printed.
    """
    return "".join(character if character.isprintable() else "?" for character in text)


def _undefined(config: RawConfig) -> Iterator[str]:
    seen: set[str] = set()
    for setting in config.settings.values():
        for name in sorted(references(setting.value) - seen):
            seen.add(name)
            if config.lookup(name) is None:
                yield f"{config.file}: undefined parameter: {name}"


# --- master.cf ---


def show_services(config: RawConfig, patterns: Sequence[str] = (), expanded: bool = False) -> Shown:
    """
    @param patterns: C{service} or C{service/type}, either of which may be C{*}; none: all.
    @param expanded: whether to replace C{$name} expressions in C{-o} options.
    @return: lines and warnings.
    @raise ConfigError: an expression is malformed.
    """
    lines: list[str] = []
    warnings = list(config.repeated)
    matched: set[str] = set()
    for service in config.lines:
        fits = [pattern for pattern in patterns if _fits(service, pattern)]
        matched.update(fits)
        if fits or not patterns:
            lines.append(_service_line(config, service, expanded))
    warnings.extend(
        f'unmatched request: "{shown(pattern)}"' for pattern in patterns if pattern not in matched
    )
    warnings.extend(unused_overrides(config.settings, config.services))
    return Shown(lines, warnings)


def _fits(service: MasterService, pattern: str) -> bool:
    # The type follows the last slash: the name of a unix endpoint may hold slashes itself.
    for name, kind in ((pattern, "*"), pattern.rpartition("/")[::2]):
        if name in ("*", service.name) and kind in ("*", service.type):
            return True
    return False


def _service_line(config: RawConfig, service: MasterService, expanded: bool) -> str:
    line = service.name
    for column, start in zip((*service.columns[1:], service.command), _COLUMNS, strict=True):
        line = f"{line} ".ljust(start) + column
    words = [line]
    for argument in service.words:
        if argument.override is None:
            words.append(argument.text if argument.ends_options else _braced(argument.text))
            continue
        name, value = argument.override
        if expanded:
            value = config.for_name(service.name).expand(value)
        words.append(f"{argument.text} {_braced(f'{name}={value}')}")
    return plain(" ".join(words))


def _braced(text: str) -> str:
    return f"{{{text}}}" if any(white in text for white in WHITE) else text
