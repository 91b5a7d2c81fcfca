"""
What to warn of at start-up: settings that do nothing.

Takes what was set and the services, gives lines for the log. Three kinds: parameters that Postfix has and
this program does nothing with, all in one line; C{-o} options in lines of master.cf that nobody here reads,
one line for each of these; and names that nobody knows, one line each, as postconf(1) words it. A name of the
user's own is in use when a value or a C{-o} option refers to it, or when it belongs to a lookup table
(C{ldap:name} has parameters C{name_...}).

Pure; never fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from qmqpd_tx.config.expression import references
from qmqpd_tx.config.known import KNOWN
from qmqpd_tx.config.main_cf import Setting, shown
from qmqpd_tx.config.master_cf import MasterService
from qmqpd_tx.config.parameters import PARAMETERS, TRANSPORT_PARAMETERS
from qmqpd_tx.config.parameters.transports import transport_member

DAEMONS = frozenset(
    (
        "anvil",
        "bounce",
        "cleanup",
        "dnsblog",
        "flush",
        "oqmgr",
        "pickup",
        "postlogd",
        "postscreen",
        "proxymap",
        "qmgr",
        "qmqpd",
        "scache",
        "showq",
        "smtpd",
        "tlsmgr",
        "tlsproxy",
        "trivial-rewrite",
        "verify",
    )
)
"""Commands in master.cf that deliver no mail, so that their services are no transports."""

_READ: Mapping[str, str | None] = {
    "cleanup": None,
    "oqmgr": "qmgr",
    "qmgr": "qmgr",
    "qmqpd": None,
    "trivial-rewrite": "rewrite",
}
"""The daemons whose C{-o} options mean something, each with the service that has to have it; L{None}: any."""

_TABLE = re.compile(r"\b(?:ldap|memcache|mysql|pgsql|sqlite):([A-Za-z0-9_]+)")


def without_effect(settings: Mapping[str, Setting], services: Sequence[MasterService]) -> list[str]:
    """
    @return: the names set in main.cf or by C{-o} that Postfix has but that do nothing here.
    """
    names = list(settings)
    for service in services:
        if _reads(service):
            names.extend(name for name in service.overrides if name not in names)
    return [name for name in names if _does_nothing(name, services)]


def _reads(service: MasterService) -> bool:
    """
    @return: whether the C{-o} options of a line mean something.
    """
    if service.command not in DAEMONS:
        return True
    return service.command in _READ and _READ[service.command] in (None, service.name)


def _does_nothing(name: str, services: Sequence[MasterService]) -> bool:
    row = PARAMETERS.get(name)
    if row is not None:
        return not row.effect
    if name in KNOWN:
        return True
    member = transport_member(name)
    return member is not None and is_member(name, services) and not PARAMETERS[member.default].effect


def is_member(name: str, services: Sequence[MasterService]) -> bool:
    """
    @return: whether a name is C{<transport>_<suffix>} of a transport in master.cf.
    """
    member = transport_member(name)
    if member is None:
        return False
    commands = TRANSPORT_PARAMETERS[member.suffix].commands
    return any(
        service.name == member.transport
        and service.command not in DAEMONS
        and (not commands or service.command in commands)
        for service in services
    )


def unknown(settings: Mapping[str, Setting], services: Sequence[MasterService]) -> list[str]:
    """
    @return: the names set in main.cf that neither Postfix nor anybody else knows, and nothing uses.
    """
    used, tables = _in_use(settings, services)
    return [
        name
        for name in settings
        if name not in PARAMETERS
        and name not in KNOWN
        and name not in used
        and not is_member(name, services)
        and not any(name.startswith(f"{table}_") for table in tables)
    ]


def _in_use(settings: Mapping[str, Setting], services: Sequence[MasterService]) -> tuple[set[str], set[str]]:
    """Names that values refer to, and names of lookup tables whose parameters stand in main.cf."""
    names = set(_REFERENCED_BY_DEFAULTS)
    tables: set[str] = set()
    values = [setting.value for setting in settings.values()]
    for service in services:
        values.extend(service.overrides.values())
    restrictions = settings.get("smtpd_restriction_classes")
    if restrictions is not None:
        names.update(restrictions.value.replace(",", " ").split())
    for value in values:
        names |= references(value)
        tables.update(_TABLE.findall(value))
    return names, tables


def _referenced_by_defaults() -> Iterator[str]:
    for row in PARAMETERS.values():
        yield from references(row.default)
    for default in KNOWN.values():
        yield from references(default)


_REFERENCED_BY_DEFAULTS = frozenset(_referenced_by_defaults())


def start_up_warnings(settings: Mapping[str, Setting], services: Sequence[MasterService]) -> Iterator[str]:
    """
    @return: the lines for the log.
    """
    idle = without_effect(settings, services)
    if idle:
        yield f"these parameters are known to Postfix but have no effect here: {', '.join(sorted(idle))}"
    for service in services:
        if service.overrides and not _reads(service):
            names = ", ".join(map(shown, sorted(service.overrides)))
            yield f"{service.where()}: -o options of {shown(service.command)} have no effect here: {names}"
    yield from unused_settings(settings, services)
    yield from unused_overrides(settings, services)


def unused_settings(settings: Mapping[str, Setting], services: Sequence[MasterService]) -> Iterator[str]:
    """
    @return: a line for each unknown name in main.cf.
    """
    for name in unknown(settings, services):
        setting = settings[name]
        yield f"{setting.where()}: unused parameter: {shown(name)}={shown(setting.value, 200)}"


def unused_overrides(settings: Mapping[str, Setting], services: Sequence[MasterService]) -> Iterator[str]:
    """
    @return: a line for each unknown name in a C{-o} option of master.cf.
    """
    used, _ = _in_use(settings, services)
    for service in services:
        overrides = {name: Setting(value, "") for name, value in service.overrides.items()}
        for name in unknown(overrides, services):
            if name not in used:
                value = shown(service.overrides[name], 200)
                yield f"{service.where()}: unused parameter: {shown(name)}={value}"
