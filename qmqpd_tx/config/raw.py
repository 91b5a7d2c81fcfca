"""
One configuration before its values are looked at.

Takes settings, services and facts about the host; answers what is set, where, and what text a name
stands for, with defaults filled in and C{$name} expressions replaced on request. Checks no value, so
that postconf can show a configuration that is not good enough to run. Immutable.

Answers to: postconf(1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import Factory, evolve, frozen

from qmqpd_tx.config.expression import ExpressionError, expand
from qmqpd_tx.config.host import Host
from qmqpd_tx.config.known import KNOWN
from qmqpd_tx.config.main_cf import Setting, shown
from qmqpd_tx.config.master_cf import MasterService
from qmqpd_tx.config.parameters import PARAMETERS, TRANSPORT_PARAMETERS
from qmqpd_tx.config.parameters.transports import transport_member
from qmqpd_tx.config.warn import is_member, start_up_warnings
from qmqpd_tx.interfaces import ConfigError

READ_ONLY = ("config_directory", "process_id", "process_name", "service_name")
"""What the program knows itself: setting it changes nothing, and is warned of."""


@frozen(slots=True, eq=False)
class RawConfig:
    """
    Settings and defaults as text.

    @ivar settings: what was set, by name.
    @ivar services: the lines of master.cf that count.
    @ivar lines: all lines of master.cf.
    @ivar directory: the folder of main.cf.
    @ivar host: what the defaults of C{myhostname} and others come from.
    @ivar file: what to call main.cf in messages.
    @ivar has_master_cf: whether the services are from a file, not the built-in ones.
    @ivar ignored: what main.cf sets of L{READ_ONLY}.
    @ivar repeated: what main.cf sets and a later line of it replaces, a message each.
    """

    settings: Mapping[str, Setting]
    services: Sequence[MasterService]
    lines: Sequence[MasterService]
    directory: str
    host: Host
    file: str = "main.cf"
    has_master_cf: bool = False
    ignored: Mapping[str, Setting] = Factory(dict)
    repeated: Sequence[str] = ()

    def lookup(self, name: str) -> str | None:
        """
        @return: the value as set, or else the default, nothing expanded; L{None} when nobody knows
            the name.
        """
        setting = self.settings.get(name)
        return self.default(name) if setting is None else setting.value

    def raw(self, name: str) -> str:
        """
        @return: as L{lookup}.
        @raise KeyError: no such parameter.
        """
        value = self.lookup(name)
        if value is None:
            raise KeyError(name)
        return value

    def default(self, name: str) -> str | None:
        """
        @return: the default of a parameter, set or not, nothing expanded; L{None} when nobody knows
            the name.
        """
        fact = self.host.fact(name, self.directory, self._hostname)
        if fact is not None:
            return fact
        parameter = PARAMETERS.get(name)
        if parameter is not None:
            return parameter.default
        known = KNOWN.get(name)
        if known is not None:
            return known
        member = transport_member(name)
        if member is not None and is_member(name, self.services):
            return f"${member.default}"
        return None

    def _hostname(self) -> str:
        """The value of myhostname, for the default of mydomain."""
        setting = self.settings.get("myhostname")
        return self.host.name if setting is None else setting.value

    def source(self, name: str) -> Setting | None:
        """
        @return: where a parameter was set, or L{None} when it was not.
        """
        return self.settings.get(name)

    def is_set(self, name: str) -> bool:
        """
        @return: whether main.cf (or an override) sets the parameter.
        """
        return name in self.settings

    def where(self, name: str) -> str:
        """
        @return: the place of a parameter's value, for messages.
        """
        setting = self.settings.get(name)
        return f"{self.file}, default value" if setting is None else setting.where()

    def names(self) -> Iterator[str]:
        """
        @return: the names of all parameters that this program knows by type, the transports' own
            included; in no order.
        """
        yield from PARAMETERS
        for service in self.services:
            for suffix in TRANSPORT_PARAMETERS:
                name = f"{service.name}_{suffix}"
                if name not in PARAMETERS and is_member(name, [service]):
                    yield name

    def expand(self, text: str) -> str:
        """
        @return: a text with its C{$name} expressions replaced, as in a value of main.cf.
        @raise ConfigError: it is malformed.
        """
        try:
            return expand(text, self.lookup)
        except ExpressionError as error:
            raise ConfigError(f'{self.file}: "{shown(text)}": {error}') from None

    def overridden(self, overrides: Mapping[str, str], file: str, line: int = 0) -> dict[str, Setting]:
        """
        @return: the settings with some replaced, said to come from C{file} and C{line}.
        """
        return {**self.settings, **{name: Setting(value, file, line) for name, value in overrides.items()}}

    def for_name(self, service_name: str) -> RawConfig:
        """
        @return: a view in which C{$service_name} is the name of a master.cf line.
        """
        return evolve(self, settings=self.overridden({"service_name": service_name}, self.file))

    def problems(self) -> list[str]:
        """
        @return: what is set to no effect, a line each, whatever C{helpful_warnings} says.
        """
        read_only = [
            f"{setting.where()}: overriding earlier entry: {name}={self.raw(name)}"
            for name, setting in self.ignored.items()
        ]
        return [*self.repeated, *read_only, *start_up_warnings(self.settings, self.services)]
