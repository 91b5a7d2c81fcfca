"""
The syntax of master.cf.

Takes the text of a file, gives a tuple of L{MasterService}, one for each line; when a service name and
type is given twice the last line counts (L{effective}). Pure. A line that is not eight columns, or a
column that makes no sense, raises L{ConfigError<qmqpd_tx.interfaces.ConfigError>} with file and line;
nothing else is ever raised.

The service column is kept as it is: besides Postfix's C{port}, C{host:port} and path names it may be
a Twisted endpoint string.

Answers to: master(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import Factory, frozen

from qmqpd_tx.config.lines import WHITE, LogicalLine, logical_lines
from qmqpd_tx.config.main_cf import shown
from qmqpd_tx.interfaces import ConfigError

TYPES = ("inet", "unix", "unix-dgram", "fifo", "pass")
COLUMNS = "service type private unpriv chroot wakeup maxproc command"

_WAKEUP = re.compile(r"[0-9]{1,9}\??\Z")
_OVERRIDE = re.compile(r"-([DvV]*)o(.*)\Z", re.DOTALL)
_LIMIT = re.compile(r"[0-9]{1,9}\Z")


@frozen(slots=True)
class Argument:
    """
    One argument of a command, as it will be printed.

    @ivar text: the argument without C{{ }}; the option itself when it overrides a parameter.
    @ivar override: name and raw value of the parameter that it sets, or L{None}.
    @ivar ends_options: whether it is the first that is no option: postconf(1) prints that one without braces.
    """

    text: str
    override: tuple[str, str] | None = None
    ends_options: bool = False


@frozen(slots=True)
class MasterService:
    """
    One line of master.cf, defaults filled in.

    @ivar name: the service column, as written.
    @ivar type: C{inet}, C{unix}, C{unix-dgram}, C{fifo} or C{pass}.
    @ivar private: whether it is only for the mail system itself.
    @ivar unpriv: whether it runs without root's rights.
    @ivar chroot: whether it runs under the queue directory.
    @ivar wakeup: seconds between wake-ups; 0 for none.
    @ivar wakeup_when_used: whether wake-ups start only after the first use (C{?}).
    @ivar maxproc: the process limit, 0 for none, or L{None} for C{default_process_limit}.
    @ivar command: the program.
    @ivar arguments: its arguments, without C{-o} options.
    @ivar overrides: parameters that C{-o} options set, raw.
    @ivar columns: the first seven columns as written, for printing.
    @ivar words: all arguments in order, for printing.
    @ivar file: where the line is.
    @ivar line: its number there.
    """

    name: str
    type: str
    private: bool
    unpriv: bool
    chroot: bool
    wakeup: int
    wakeup_when_used: bool
    maxproc: int | None
    command: str
    arguments: Sequence[str] = ()
    overrides: Mapping[str, str] = Factory(dict)
    columns: Sequence[str] = ()
    words: Sequence[Argument] = ()
    file: str = "master.cf"
    line: int = 0

    def where(self) -> str:
        """
        @return: the place for messages, as in C{master.cf, line 12}.
        """
        return f"{self.file}, line {self.line}"


def parse_master_cf(text: str, file: str = "master.cf") -> tuple[MasterService, ...]:
    """
    @param text: the text of the file.
    @param file: its name, for error messages.
    @return: its lines in order.
    @raise ConfigError: a line makes no sense.
    """
    return tuple(_service(line, file) for line in logical_lines(text))


def effective(lines: Sequence[MasterService]) -> tuple[MasterService, ...]:
    """
    @return: the lines that count, in order of the first appearance of their service.
    """
    return tuple({(line.name, line.type): line for line in lines}.values())


def _service(line: LogicalLine, file: str) -> MasterService:
    where = f"{file}, line {line.number}"
    if line.orphan:
        raise ConfigError(
            f'{where}: logical line must not start with whitespace: "{shown(line.text)}": '
            "start a service in the first column; an indented line continues the one above"
        )
    words = _words(line.text, where)
    if len(words) < 8:
        raise ConfigError(
            f"{where}: {len(words)} columns where 8 are needed: write {COLUMNS} [arguments], "
            "with - for a default"
        )
    name, kind, private, unpriv, chroot, wakeup, maxproc, command = words[:8]
    if kind not in TYPES:
        raise ConfigError(f'{where}: bad service type "{shown(kind)}": use {", ".join(TYPES)}')
    flags = {}
    for column, flag, default in (
        ("private", private, kind != "inet"),
        ("unpriv", unpriv, True),
        ("chroot", chroot, False),
    ):
        if flag not in ("y", "n", "-"):
            raise ConfigError(f'{where}: bad value "{shown(flag)}" in column {column}: use y, n or -')
        flags[column] = default if flag == "-" else flag == "y"
    if kind == "inet" and flags["private"]:
        raise ConfigError(f"{where}: an inet service cannot be private: use n in column private")
    if wakeup != "-" and not _WAKEUP.match(wakeup):
        raise ConfigError(
            f'{where}: bad value "{shown(wakeup)}" in column wakeup: use seconds, seconds? or -'
        )
    if maxproc != "-" and not _LIMIT.match(maxproc):
        raise ConfigError(f'{where}: bad value "{shown(maxproc)}" in column maxproc: use a number or -')
    parsed = _arguments(words[8:], where)
    return MasterService(
        name=name,
        type=kind,
        private=flags["private"],
        unpriv=flags["unpriv"],
        chroot=flags["chroot"],
        wakeup=0 if wakeup == "-" else int(wakeup.rstrip("?")),
        wakeup_when_used=wakeup.endswith("?"),
        maxproc=None if maxproc == "-" else int(maxproc),
        command=command,
        arguments=tuple(word.text for word in parsed if word.override is None),
        overrides=dict(word.override for word in parsed if word.override is not None),
        columns=tuple(words[:7]),
        words=parsed,
        file=file,
        line=line.number,
    )


def _words(text: str, where: str) -> list[str]:
    """Split at white space outside C{{ }}; only a brace that starts a word counts."""
    words: list[str] = []
    position = 0
    while True:
        while position < len(text) and text[position] in WHITE:
            position += 1
        if position == len(text):
            return words
        end = position
        if text[position] == "{":
            end = _closing(text, position, where)
        while end < len(text) and text[end] not in WHITE:
            end += 1
        words.append(text[position:end])
        position = end


def _closing(text: str, start: int, where: str) -> int:
    depth = 0
    for brace in re.compile("[{}]").finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            end = brace.end()
            if end < len(text) and text[end] not in WHITE:
                raise ConfigError(
                    f'{where}: text after "}}" in "{shown(text[start:])}": put white space between'
                )
            return end
    raise ConfigError(f'{where}: "{{" is not closed with "}}" in "{shown(text[start:])}"')


def unbraced(word: str) -> str:
    """
    @return: an argument without the C{{ }} around it and the white space inside them.
    """
    return word[1:-1].strip(WHITE) if word[:1] == "{" and word[-1:] == "}" else word


def _arguments(words: Sequence[str], where: str) -> tuple[Argument, ...]:
    """
    Tell C{-o name=value} from the other arguments. Options end at the first word without a C{-}: what
    follows belongs to the program (or, with pipe(8), to the command that it runs).
    """
    parsed: list[Argument] = []
    rest = iter(words)
    for word in rest:
        option = _OVERRIDE.match(word)
        if option is None:
            ends = word[0] != "-"
            parsed.append(Argument(unbraced(word), ends_options=ends))
            if ends:
                break
            continue
        if option.group(1):
            parsed.append(Argument(f"-{option.group(1)}"))
        setting = option.group(2) or next(rest, "")
        name, equals, value = (part.strip(WHITE) for part in unbraced(setting).partition("="))
        if not equals or not name or any(white in name for white in WHITE):
            raise ConfigError(
                f'{where}: "-o {shown(setting)}" sets nothing: write -o name=value or -o {{ name = value }}'
            )
        parsed.append(Argument("-o", (name, value)))
    parsed.extend(Argument(unbraced(word)) for word in rest)
    return tuple(parsed)
