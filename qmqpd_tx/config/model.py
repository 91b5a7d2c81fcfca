"""
One configuration, as a value.

Takes settings (from main.cf), services (from master.cf) and facts about the host; checks and converts
everything at once, so that the accessors are dictionary look-ups. Immutable. Any bad value raises
L{ConfigError<qmqpd_tx.interfaces.ConfigError>} with file, line, name, value, bounds and remedy; a
reload builds a new value beside the old one, so that a bad file changes nothing.

Answers to: Postfix's main.cf parameters, and the C{-o} options of master.cf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen
from zope.interface import implementer

from qmqpd_tx.config.expression import ExpressionError, expand
from qmqpd_tx.config.host import Host
from qmqpd_tx.config.known import KNOWN
from qmqpd_tx.config.main_cf import Setting, shown
from qmqpd_tx.config.master_cf import MasterService
from qmqpd_tx.config.parameters import PARAMETERS, TRANSPORT_PARAMETERS
from qmqpd_tx.config.parameters.transports import transport_member
from qmqpd_tx.config.table import Parameter, Type, Value
from qmqpd_tx.config.warn import is_member, start_up_warnings
from qmqpd_tx.interfaces import ConfigError, IConfig


@implementer(IConfig)
@frozen(slots=True, eq=False)
class Config:
    """
    See L{IConfig<qmqpd_tx.interfaces.IConfig>} for the accessors by type.

    @ivar settings: what was set, by name.
    @ivar services: the lines of master.cf.
    @ivar directory: the folder of main.cf.
    @ivar host: what the defaults of C{myhostname} and others come from.
    @ivar file: what to call main.cf in messages.
    @ivar has_master_cf: whether the services are from a file, not the built-in ones.
    """

    settings: Mapping[str, Setting]
    services: Sequence[MasterService]
    directory: str
    host: Host
    file: str = "main.cf"
    has_master_cf: bool = False
    _texts: dict[str, str] = field(init=False, repr=False)
    _integers: dict[str, int] = field(init=False, repr=False)
    _booleans: dict[str, bool] = field(init=False, repr=False)
    _seconds: dict[str, float] = field(init=False, repr=False)
    _words: dict[str, tuple[str, ...]] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for name in ("_texts", "_integers", "_booleans", "_seconds", "_words"):
            object.__setattr__(self, name, {})
        for name, parameter in PARAMETERS.items():
            self._enter(name, parameter)
        for name in self.settings:
            if name not in PARAMETERS:
                member = transport_member(name)
                if member is not None:
                    self._enter(name, PARAMETERS[member.default])

    # --- construction ---

    def _enter(self, name: str, parameter: Parameter) -> None:
        """Expand, check and convert one value."""
        raw = self.raw(name)
        try:
            text = raw if "$" not in raw else expand(raw, self._lookup)
            value: Value = parameter.parse(text)
        except ValueError as error:
            raise ConfigError(f"{self._where(name)}: parameter {name}: {error}{_origin(raw)}") from None
        self._texts[name] = value if parameter.type is Type.FEEDBACK and isinstance(value, str) else text
        if isinstance(value, bool):
            self._booleans[name] = value
        elif isinstance(value, int):
            self._integers[name] = value
        elif isinstance(value, float):
            self._seconds[name] = value
        elif isinstance(value, tuple):
            self._words[name] = value

    def _where(self, name: str) -> str:
        source = self.source(name)
        return source.where() if source is not None else f"{self.file}, default value"

    def _lookup(self, name: str) -> str | None:
        """The raw value of any name, for expressions."""
        setting = self.settings.get(name)
        if setting is not None:
            return setting.value
        return self.default(name)

    # --- IConfig ---

    def string(self, name: str) -> str:
        """See L{IConfig}."""
        return self._texts[name]

    def integer(self, name: str) -> int:
        """See L{IConfig}."""
        try:
            return self._integers[name]
        except KeyError:
            raise self._misuse(name, "an integer") from None

    def boolean(self, name: str) -> bool:
        """See L{IConfig}."""
        try:
            return self._booleans[name]
        except KeyError:
            raise self._misuse(name, "a yes/no") from None

    def seconds(self, name: str) -> float:
        """See L{IConfig}."""
        try:
            return self._seconds[name]
        except KeyError:
            raise self._misuse(name, "a time") from None

    def words(self, name: str) -> Sequence[str]:
        """See L{IConfig}."""
        try:
            return self._words[name]
        except KeyError:
            raise self._misuse(name, "a list") from None

    def transport_integer(self, transport: str, suffix: str) -> int:
        """See L{IConfig}."""
        return self.integer(self._member(transport, suffix))

    def transport_seconds(self, transport: str, suffix: str) -> float:
        """See L{IConfig}."""
        return self.seconds(self._member(transport, suffix))

    def transport_string(self, transport: str, suffix: str) -> str:
        """See L{IConfig}."""
        return self.string(self._member(transport, suffix))

    def with_overrides(self, overrides: Mapping[str, str]) -> Config:
        """See L{IConfig}."""
        return self._overridden(overrides, "-o option")

    # --- more ---

    def for_service(self, service: MasterService) -> Config:
        """
        @return: the configuration for one master.cf line: its C{-o} options applied, and
            C{$service_name} its name.
        @raise ConfigError: an override is bad; names the line in master.cf.
        """
        overrides = {"service_name": service.name, **service.overrides}
        return self._overridden(overrides, service.file, service.line)

    def _overridden(self, overrides: Mapping[str, str], file: str, line: int = 0) -> Config:
        if not overrides:
            return self
        added = {name: Setting(value, file, line) for name, value in overrides.items()}
        return evolve(self, settings={**self.settings, **added})

    def raw(self, name: str) -> str:
        """
        @return: the value as set, or else the default, nothing expanded.
        @raise KeyError: no such parameter.
        """
        value = self._lookup(name)
        if value is None:
            raise KeyError(name)
        return value

    def default(self, name: str) -> str | None:
        """
        @return: the raw default of a parameter, set or not; L{None} when nobody knows the name.
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
        return setting.value if setting is not None else self.host.name

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

    def expand(self, text: str) -> str:
        """
        @return: a text with its C{$name} expressions replaced, as in a value of main.cf.
        @raise ConfigError: it is malformed.
        """
        try:
            return expand(text, self._lookup)
        except ExpressionError as error:
            raise ConfigError(f'{self.file}: "{shown(text)}": {error}') from None

    def warnings(self) -> list[str]:
        """
        @return: what to warn of at start-up, a line each; nothing with C{helpful_warnings = no}.
        """
        if not self.boolean("helpful_warnings"):
            return []
        return list(start_up_warnings(self.settings, self.services))

    def _member(self, transport: str, suffix: str) -> str:
        """The parameter that counts for a transport."""
        name = f"{transport}_{suffix}"
        if name in self._texts:
            return name
        return TRANSPORT_PARAMETERS[suffix].default

    def _misuse(self, name: str, wanted: str) -> Exception:
        if name in self._texts:
            return TypeError(f"{name} is not {wanted} parameter")
        return KeyError(name)


def _origin(raw: str) -> str:
    """A hint for a value that is bad only after expansion."""
    return f' (the value is "{shown(raw)}" before expansion)' if "$" in raw else ""
