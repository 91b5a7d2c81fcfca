"""
The syntax of main.cf.

Takes the text of a file, gives a L{Setting} for each name: the raw value and where it was set. When a
name is set more than once the last one counts. Knows nothing about which names exist or what their
values mean. A line that is not C{name = value} raises
L{ConfigError<qmqpd_tx.interfaces.ConfigError>}; nothing else is ever raised.

Answers to: postconf(5), "the general format of the main.cf file".
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from qmqpd_tx.config.lines import WHITE, logical_lines
from qmqpd_tx.interfaces import ConfigError


@frozen(slots=True)
class Setting:
    """
    One C{name = value}.

    @ivar value: the text after C{=}, without surrounding white space, nothing expanded.
    @ivar file: the file, or what else it came from.
    @ivar line: the number of its first line, or 0 when it did not come from a file.
    """

    value: str
    file: str
    line: int = 0

    def where(self) -> str:
        """
        @return: the place for messages, as in C{main.cf, line 12}.
        """
        return f"{self.file}, line {self.line}" if self.line else self.file


def parse_main_cf(text: str, file: str = "main.cf") -> dict[str, Setting]:
    """
    @param text: the text of the file.
    @param file: its name, for error messages.
    @return: settings by name, in order of their first appearance.
    @raise ConfigError: a line is not C{name = value}.
    """
    return dict(_entries(text, file))


def repeated_entries(text: str, file: str = "main.cf") -> Iterator[str]:
    """
    @return: a message for each setting that a later line replaces.
    @raise ConfigError: as L{parse_main_cf}.
    """
    settings: dict[str, Setting] = {}
    for name, setting in _entries(text, file):
        if name in settings:
            yield f"{setting.where()}: overriding earlier entry: {name}={settings[name].value}"
        settings[name] = setting


def _entries(text: str, file: str) -> Iterator[tuple[str, Setting]]:
    for line in logical_lines(text):
        where = f"{file}, line {line.number}"
        if line.orphan:
            raise ConfigError(
                f'{where}: logical line must not start with whitespace: "{shown(line.text)}": '
                "write name = value from the first column; an indented line continues the one above"
            )
        name, equals, value = line.text.partition("=")
        name = name.rstrip(WHITE)
        if not name:
            raise ConfigError(f'{where}: missing attribute name: "{shown(line.text)}": write name = value')
        if not equals or any(white in name for white in WHITE):
            raise ConfigError(
                f"{where}: missing '=' after attribute name: \"{shown(line.text)}\": write name = value"
            )
        yield name, Setting(value.strip(WHITE), file, line.number)


def shown(text: str, limit: int = 60) -> str:
    """
    @return: text fit for one line of an error message: cut, and without control or other unprintable
        characters.
    """
    if len(text) > limit:
        text = text[:limit] + "..."
    return "".join(character if character.isprintable() else "?" for character in text)
