"""
One configuration, as a value.

Takes settings (from main.cf), services (from master.cf) and facts about the host; checks and converts
everything at once, so that the accessors are dictionary look-ups. Immutable. Any bad value raises
L{ConfigError<qmqpd_tx.interfaces.ConfigError>} with file, line, name, value, bounds and remedy; a
reload builds a new value beside the old one, so that a bad file changes nothing.

Answers to: Postfix's main.cf parameters, and the C{-o} options of master.cf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, field, frozen
from zope.interface import implementer

from qmqpd_tx.config.expression import expand
from qmqpd_tx.config.main_cf import shown
from qmqpd_tx.config.master_cf import MasterService
from qmqpd_tx.config.parameters import PARAMETERS, TRANSPORT_PARAMETERS
from qmqpd_tx.config.parameters.transports import transport_member
from qmqpd_tx.config.raw import READ_ONLY, RawConfig
from qmqpd_tx.config.table import Parameter, Type, Value
from qmqpd_tx.interfaces import ConfigError, IConfig


@implementer(IConfig)
@frozen(slots=True, eq=False)
class Config(RawConfig):
    """
    A checked configuration. The accessors by type are L{IConfig<qmqpd_tx.interfaces.IConfig>}'s.
    """

    _texts: dict[str, str] = field(init=False, repr=False)
    _integers: dict[str, int] = field(init=False, repr=False)
    _booleans: dict[str, bool] = field(init=False, repr=False)
    _seconds: dict[str, float] = field(init=False, repr=False)
    _words: dict[str, tuple[str, ...]] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for name in ("_texts", "_integers", "_booleans", "_seconds", "_words"):
            object.__setattr__(self, name, {})
        # What is set comes first, so that an error is told where it was made and not by a default
        # that refers to it.
        for name in self.settings:
            row = PARAMETERS.get(name)
            if row is None:
                member = transport_member(name)
                row = PARAMETERS[member.default] if member is not None else None
            if row is not None:
                self._enter(name, row)
        for name, row in PARAMETERS.items():
            if name not in self.settings:
                self._enter(name, row)

    # --- construction ---

    def _enter(self, name: str, parameter: Parameter) -> None:
        """Expand, check and convert one value."""
        raw = self.raw(name)
        try:
            text = raw if "$" not in raw else expand(raw, self.lookup)
            value: Value = parameter.parse(text)
        except ValueError as error:
            raise ConfigError(f"{self.where(name)}: parameter {shown(name)}: {error}{_origin(raw)}") from None
        self._texts[name] = value if parameter.type is Type.FEEDBACK and isinstance(value, str) else text
        if isinstance(value, bool):
            self._booleans[name] = value
        elif isinstance(value, int):
            self._integers[name] = value
        elif isinstance(value, float):
            self._seconds[name] = value
        elif isinstance(value, tuple):
            self._words[name] = value

    # --- IConfig ---

    def string(self, name: str) -> str:
        """See L{IConfig}."""
        return self._texts[name]

    def setting(self, name: str) -> str:
        """
        @param name: any name in main.cf, also one that the operator made up, as those of C{pgsql:name} are.
        @return: its value with all C{$name} references expanded.
        @raise ConfigError: it is not set.
        """
        if name in self._texts:
            return self._texts[name]
        raw = self.lookup(name)
        if raw is None:
            raise ConfigError(f"{name}: is not set in {self.file}; set it")
        return expand(raw, self.lookup)

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
        return self._replaced(overrides, "-o option") if overrides else self

    # --- more ---

    def for_service(self, service: MasterService) -> Config:
        """
        @return: the configuration for one master.cf line: its C{-o} options applied, and
            C{$service_name} its name.
        @raise ConfigError: an override is bad; names the line in master.cf.
        """
        own = {name: value for name, value in service.overrides.items() if name not in READ_ONLY}
        overrides = {**own, "service_name": service.name}
        return self._replaced(overrides, service.file, service.line)

    def of_service(self, name: str, command: str | None = None) -> Config:
        """
        @param name: the name of a service in master.cf.
        @param command: its command; L{None}: any.
        @return: the configuration with the C{-o} options of its line, if it has one.
        @raise ConfigError: as L{for_service}.
        """
        for service in self.services:
            if service.name == name and command in (None, service.command) and service.overrides:
                return self.for_service(service)
        return self

    def _replaced(self, overrides: Mapping[str, str], file: str, line: int = 0) -> Config:
        return evolve(self, settings=self.overridden(overrides, file, line))

    def warnings(self) -> list[str]:
        """
        @return: what to warn of at start-up, a line each; nothing with C{helpful_warnings = no}.
        """
        if not self.boolean("helpful_warnings"):
            return []
        return [*self.problems(), *self._contradictions()]

    def _contradictions(self) -> Iterator[str]:
        """Values that are good each, but not together."""
        for smaller, larger in (
            ("minimal_backoff_time", "maximal_backoff_time"),
            ("queue_run_delay", "minimal_backoff_time"),
        ):
            if self.seconds(smaller) > self.seconds(larger):
                yield (
                    f"{self.where(smaller)}: parameter {smaller}: {self.raw(smaller)} is more than "
                    f"{larger}, {self.raw(larger)}: make it at most that"
                )

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
