"""
What main.cf says about the SMTP client, read once.

Takes an L{IConfig<qmqpd_tx.interfaces.IConfig>} with the service's C{-o} overrides applied; gives one
frozen value with native types. Fails with L{ConfigError<qmqpd_tx.interfaces.ConfigError>}, naming the
parameter and the values it may have. Answers to smtp(8), section CONFIGURATION PARAMETERS.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from attrs import frozen

from qmqpd_tx.interfaces import ConfigError, IConfig

_KNOWN_PORTS = {"lmtp": 24, "smtp": 25, "smtps": 465, "submissions": 465, "submission": 587}


def port_number(name: str) -> int | None:
    """
    @param name: a decimal port, a name of C{known_tcp_ports}, or a name of services(5).
    @return: the port, or L{None} when there is no such service.
    """
    if name.isascii() and name.isdigit():
        number = int(name)
        return number if 0 < number < 65536 else None
    known = _KNOWN_PORTS.get(name.lower())
    if known is not None:
        return known
    try:
        return socket.getservbyname(name, "tcp")
    except OSError:
        return None


@frozen(slots=True)
class Timeouts:
    """Time limits in seconds for each stage of a session; the names are smtp_NAME_timeout's."""

    connect: float
    helo: float
    mail: float
    rcpt: float
    data_init: float
    data_xfer: float
    data_done: float
    rset: float
    quit: float


@frozen(slots=True)
class Settings:
    """
    The parameters of one SMTP transport; an instance variable has the parameter's name without its
    C{smtp_} where it has one.

    @ivar families: the enabled protocols, some of C{"ipv4"} and C{"ipv6"}.
    @ivar use_dns: whether names are looked up in the DNS at all (C{smtp_dns_support_level}).
    @ivar smtputf8: C{smtputf8_enable}.
    @ivar idna2003: C{enable_idna2003_compatibility}.
    @ivar host_lookup: some of C{"dns"} and C{"native"}, DNS first.
    """

    myhostname: str
    helo_name: str
    tcp_port: int
    families: frozenset[str]
    address_preference: str
    inet_interfaces: Sequence[str]
    proxy_interfaces: Sequence[str]
    bind_address: str
    bind_address6: str
    bind_address_enforce: bool
    use_dns: bool
    host_lookup: Sequence[str]
    ignore_mx_lookup_error: bool
    defer_if_no_mx_address_found: bool
    randomize_addresses: bool
    balance_inet_protocols: bool
    mx_lookup_limit: int
    mx_address_limit: int
    mx_session_limit: int
    fallback_relay: Sequence[str]
    skip_5xx_greeting: bool
    always_send_ehlo: bool
    never_send_ehlo: bool
    discard_ehlo_keywords: frozenset[str]
    skip_quit_response: bool
    quote_envelope: bool
    line_length_limit: int
    reply_length_limit: int
    disable_mime_output_conversion: bool
    smtputf8: bool
    idna2003: bool
    cache_on_demand: bool
    cache_destinations: frozenset[str]
    cache_time_limit: float
    reuse_time_limit: float
    reuse_count_limit: int
    timeouts: Timeouts


def _families(config: IConfig) -> frozenset[str]:
    words = [word.lower() for word in config.words("inet_protocols")]
    if words == ["all"]:
        return frozenset(("ipv4", "ipv6"))
    families = frozenset(words)
    if not families or families - {"ipv4", "ipv6"}:
        raise ConfigError(
            f"inet_protocols: bad value {config.string('inet_protocols')!r}: specify ipv4, ipv6, or all"
        )
    return families


def _one_of(config: IConfig, name: str, allowed: Sequence[str]) -> str:
    value = config.string(name).strip().lower()
    if value not in allowed:
        raise ConfigError(f"{name}: bad value {value!r}: specify one of {', '.join(filter(None, allowed))}")
    return value


def _uses_dns(config: IConfig) -> bool:
    level = _one_of(config, "smtp_dns_support_level", ("", "disabled", "enabled", "dnssec"))
    if level == "dnssec":
        raise ConfigError("smtp_dns_support_level: dnssec is not supported: specify enabled or disabled")
    return not config.boolean("disable_dns_lookups") if not level else level == "enabled"


def _host_lookup(config: IConfig) -> Sequence[str]:
    words = {word.lower() for word in config.words("smtp_host_lookup")}
    if not words or words - {"dns", "native"}:
        raise ConfigError(
            f"smtp_host_lookup: bad value {config.string('smtp_host_lookup')!r}: specify dns, native, or both"
        )
    return [word for word in ("dns", "native") if word in words]


def settings_from(config: IConfig) -> Settings:
    """
    @param config: the configuration of one transport.
    @return: its settings.
    @raise ConfigError: a value cannot be used.
    """
    port = port_number(config.string("smtp_tcp_port"))
    if port is None:
        raise ConfigError(
            f"smtp_tcp_port: unknown service {config.string('smtp_tcp_port')!r}/tcp:"
            " specify a port number or a name from /etc/services"
        )
    use_dns = _uses_dns(config)
    limit = config.integer("smtp_line_length_limit")
    return Settings(
        myhostname=config.string("myhostname"),
        helo_name=config.string("smtp_helo_name"),
        tcp_port=port,
        families=_families(config),
        address_preference=_one_of(config, "smtp_address_preference", ("any", "ipv4", "ipv6")),
        inet_interfaces=list(config.words("inet_interfaces")),
        proxy_interfaces=list(config.words("proxy_interfaces")),
        bind_address=config.string("smtp_bind_address").strip().strip("[]"),
        bind_address6=config.string("smtp_bind_address6").strip().strip("[]"),
        bind_address_enforce=config.boolean("smtp_bind_address_enforce"),
        use_dns=use_dns,
        host_lookup=_host_lookup(config) if use_dns else ["native"],
        ignore_mx_lookup_error=config.boolean("ignore_mx_lookup_error"),
        defer_if_no_mx_address_found=config.boolean("smtp_defer_if_no_mx_address_found"),
        randomize_addresses=config.boolean("smtp_randomize_addresses"),
        balance_inet_protocols=config.boolean("smtp_balance_inet_protocols"),
        mx_lookup_limit=config.integer("smtp_mx_lookup_limit"),
        mx_address_limit=config.integer("smtp_mx_address_limit"),
        mx_session_limit=config.integer("smtp_mx_session_limit"),
        fallback_relay=list(config.words("smtp_fallback_relay")),
        skip_5xx_greeting=config.boolean("smtp_skip_5xx_greeting"),
        always_send_ehlo=config.boolean("smtp_always_send_ehlo"),
        never_send_ehlo=config.boolean("smtp_never_send_ehlo"),
        discard_ehlo_keywords=frozenset(word.upper() for word in config.words("smtp_discard_ehlo_keywords")),
        skip_quit_response=config.boolean("smtp_skip_quit_response"),
        quote_envelope=config.boolean("smtp_quote_rfc821_envelope"),
        # A continuation line starts with a space, so that two bytes are the least that gets anywhere.
        line_length_limit=max(limit, 2) if limit else 0,
        reply_length_limit=config.integer("line_length_limit"),
        disable_mime_output_conversion=config.boolean("disable_mime_output_conversion"),
        smtputf8=config.boolean("smtputf8_enable"),
        idna2003=config.boolean("enable_idna2003_compatibility"),
        cache_on_demand=config.boolean("smtp_connection_cache_on_demand"),
        cache_destinations=frozenset(
            word.lower() for word in config.words("smtp_connection_cache_destinations")
        ),
        cache_time_limit=config.seconds("smtp_connection_cache_time_limit"),
        reuse_time_limit=config.seconds("smtp_connection_reuse_time_limit"),
        reuse_count_limit=config.integer("smtp_connection_reuse_count_limit"),
        timeouts=Timeouts(
            connect=config.seconds("smtp_connect_timeout"),
            helo=config.seconds("smtp_helo_timeout"),
            mail=config.seconds("smtp_mail_timeout"),
            rcpt=config.seconds("smtp_rcpt_timeout"),
            data_init=config.seconds("smtp_data_init_timeout"),
            data_xfer=config.seconds("smtp_data_xfer_timeout"),
            data_done=config.seconds("smtp_data_done_timeout"),
            rset=config.seconds("smtp_rset_timeout"),
            quit=config.seconds("smtp_quit_timeout"),
        ),
    )
