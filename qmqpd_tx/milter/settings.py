"""
Which filters there are, and how each is to be talked to. Read once from the configuration.

Takes an L{IConfig}; gives a frozen L{MilterSettings}. What cannot be used raises
L{ConfigError<qmqpd_tx.interfaces.ConfigError>}, naming the parameter, the element and the remedy; Postfix
finds such mistakes when the first mail comes. Answers to the C{milter_*} parameters and C{non_smtpd_milters}.
"""

from __future__ import annotations

import enum
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Self

from attrs import Factory, frozen

from qmqpd_tx.interfaces import ConfigError, IConfig
from qmqpd_tx.milter.protocol import OFFERED, Stage, Step, macro_name

FILTERS = "non_smtpd_milters"

MACRO_PARAMETERS: Mapping[Stage, str] = {
    Stage.CONNECT: "milter_connect_macros",
    Stage.HELO: "milter_helo_macros",
    Stage.MAIL: "milter_mail_macros",
    Stage.RCPT: "milter_rcpt_macros",
    Stage.DATA: "milter_data_macros",
    Stage.END_OF_HEADERS: "milter_end_of_header_macros",
    Stage.END_OF_MESSAGE: "milter_end_of_data_macros",
}
"""Where the macros of a stage are configured."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIME = re.compile(r"([0-9]{1,9})([smhdw]?)")


class DefaultAction(enum.Enum):
    """What becomes of mail when a filter fails; the value is that of C{milter_default_action}."""

    ACCEPT = "accept"
    QUARANTINE = "quarantine"
    REJECT = "reject"
    TEMPFAIL = "tempfail"


@frozen(slots=True)
class FilterAddress:
    """
    Where a filter listens.

    @ivar host: a name or an address; C{""}: a socket in the file system.
    @ivar port: its TCP port.
    @ivar path: of a socket in the file system.
    """

    host: str = ""
    port: int = 0
    path: str = ""


@frozen(slots=True, kw_only=True)
class FilterSettings:
    """
    One filter.

    @ivar name: the address as it was written, for the log.
    @ivar address: where it is.
    @ivar version: which protocol version to offer.
    @ivar steps: which steps of the protocol to offer.
    @ivar default_action: what to do when it fails.
    @ivar connect_timeout: for connecting and negotiating, seconds.
    @ivar command_timeout: for each event of the envelope, seconds.
    @ivar content_timeout: for each event of the content, seconds.
    """

    name: str
    address: FilterAddress
    version: int = 6
    steps: int = OFFERED[6]
    default_action: DefaultAction = DefaultAction.TEMPFAIL
    connect_timeout: float = 30.0
    command_timeout: float = 30.0
    content_timeout: float = 300.0


@frozen(slots=True, kw_only=True)
class MilterSettings:
    """
    All filters, and what they are told.

    @ivar filters: in the order in which they are asked.
    @ivar macros: the names that go with each stage, unless the filter wants others.
    @ivar values: macros with the same value for every message.
    @ivar defaults: values of macros that have none.
    @ivar packet_limit: the longest packet from a filter, bytes.
    @ivar reply_limit: how many replies one filter may give about one message.
    """

    filters: Sequence[FilterSettings] = ()
    macros: Mapping[Stage, tuple[bytes, ...]] = Factory(dict)
    values: Mapping[bytes, bytes] = Factory(dict)
    defaults: Mapping[bytes, bytes] = Factory(dict)
    packet_limit: int = 1048576
    reply_limit: int = 10000

    @classmethod
    def from_config(cls, config: IConfig) -> Self:
        """
        @raise ConfigError: a parameter cannot be used.
        """
        usual = {
            "protocol": " ".join(config.words("milter_protocol")),
            "default_action": config.string("milter_default_action"),
        }
        times = {
            "connect_timeout": config.seconds("milter_connect_timeout"),
            "command_timeout": config.seconds("milter_command_timeout"),
            "content_timeout": config.seconds("milter_content_timeout"),
        }
        return cls(
            filters=tuple(parse_filter(word, usual, times) for word in config.words(FILTERS)),
            macros={
                stage: tuple(macro_name(_bytes(word)) for word in config.words(parameter))
                for stage, parameter in MACRO_PARAMETERS.items()
            },
            values={
                b"j": _bytes(config.string("myhostname")),
                b"v": _bytes(config.string("milter_macro_v")),
                b"{daemon_name}": _bytes(config.string("milter_macro_daemon_name")),
                b"{daemon_addr}": b"127.0.0.1",
                b"{daemon_port}": b"0",
                b"{client_port}": b"0",
            },
            defaults=dict(_default(word) for word in config.words("milter_macro_defaults")),
            packet_limit=config.integer("milter_packet_size_limit"),
            reply_limit=config.integer("milter_reply_count_limit"),
        )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").partition(b"\0")[0]


def _default(word: str) -> tuple[bytes, bytes]:
    bare = word[1:-1] if word.startswith("{") and word.endswith("}") else word
    name, equals, value = bare.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f'milter_macro_defaults: "{word}" is no name=value: write it as name=value')
    return macro_name(_bytes(name.strip())), _bytes(value.strip())


def parse_filter(word: str, usual: Mapping[str, str], times: Mapping[str, float]) -> FilterSettings:
    """
    @param word: an element of C{non_smtpd_milters}: an address, or C{{ address, name=value ... }}.
    @param usual: C{protocol} and C{default_action} for filters that do not have their own.
    @param times: likewise the time limits, in seconds.
    @raise ConfigError: it makes no sense.
    """
    own: dict[str, str] = {}
    name = word
    if word.startswith("{"):
        if not word.endswith("}"):
            raise ConfigError(f'{FILTERS}: "{word}": nothing may follow the closing "}}"')
        name, *settings = _elements(word[1:-1]) or [""]
        for setting in settings:
            bare = setting[1:-1] if setting.startswith("{") and setting.endswith("}") else setting
            key, equals, value = (part.strip() for part in bare.partition("="))
            if not equals or key not in (*usual, *times):
                known = ", ".join(sorted((*usual, *times)))
                raise ConfigError(
                    f'{FILTERS}: {name}: unknown setting "{setting}": use name=value with {known}'
                )
            own[key] = value
    if not name:
        raise ConfigError(f'{FILTERS}: "{word}" names no filter: write inet:host:port or unix:pathname')
    version, steps = _protocol(own.get("protocol", usual["protocol"]), name)
    limits = {key: _seconds(own[key], key, name) if key in own else times[key] for key in times}
    return FilterSettings(
        name=name,
        address=parse_address(name),
        version=version,
        steps=steps,
        default_action=_action(own.get("default_action", usual["default_action"]), name),
        **limits,
    )


def parse_address(text: str) -> FilterAddress:
    """
    @param text: C{inet:host:port}, C{inet6:host:port}, C{inet:port@host}, C{unix:path} or C{local:path}.
    @raise ConfigError: it is none of these.
    """
    kind, _, rest = text.partition(":")
    if kind in ("unix", "local") and rest:
        return FilterAddress(path=rest)
    if kind in ("inet", "inet6") and rest:
        if "@" in rest:
            port, _, host = rest.partition("@")
        else:
            host, _, port = rest.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1].removeprefix("IPv6:")
        number = _port(port)
        if host and number:
            return FilterAddress(host=host, port=number)
    raise ConfigError(f'{FILTERS}: bad address "{text}": use inet:host:port or unix:pathname')


def _port(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text) if len(text) < 6 and int(text) < 65536 else 0
    try:
        return socket.getservbyname(text, "tcp")
    except (OSError, UnicodeError, ValueError):
        return 0


def _protocol(text: str, name: str) -> tuple[int, int]:
    version = 0
    extra = 0
    for word in text.replace(",", " ").split():
        if word == "no_header_reply":
            extra |= Step.SILENT_HEADER
        elif word.isascii() and word.isdigit() and len(word) < 3 and int(word) in OFFERED and not version:
            version = int(word)
        else:
            raise ConfigError(
                f'{name}: bad milter_protocol "{text}": use 2, 3, 4 or 6, and possibly no_header_reply'
            )
    if not version:
        raise ConfigError(f'{name}: milter_protocol "{text}" names no version: use 6')
    return version, OFFERED[version] | extra


def _action(text: str, name: str) -> DefaultAction:
    try:
        return DefaultAction(text)
    except ValueError:
        choices = ", ".join(action.value for action in DefaultAction)
        raise ConfigError(f'{name}: bad default_action "{text}": use one of {choices}') from None


def _seconds(text: str, key: str, name: str) -> float:
    match = _TIME.fullmatch(text)
    value = int(match.group(1)) * _SECONDS[match.group(2) or "s"] if match is not None else 0
    if not value:
        raise ConfigError(f'{name}: bad {key} "{text}": use a number above zero, and one of s, m, h, d, w')
    return float(value)


def _elements(text: str) -> list[str]:
    """
    @return: what stands in a list, split at commas and white space outside C{{ }}.
    """
    return re.findall(r"(?:\{[^{}]*\}|[^\s,{}])+", text)
