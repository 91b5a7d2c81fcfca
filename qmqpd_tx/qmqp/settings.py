"""
What the QMQP server reads from the configuration, once per start or reload. Pure.

Takes an L{IConfig<qmqpd_tx.interfaces.IConfig>}; gives one frozen value that a connection keeps from its
first byte to its last, so that a reload never changes the rules in mid-message. Answers to the parameters of
Postfix's qmqpd(8).
"""

from __future__ import annotations

from attrs import frozen

from qmqpd_tx.interfaces import ConfigError, IConfig, Treatment
from qmqpd_tx.qmqp.limits import LimitSettings
from qmqpd_tx.qmqp.verp import verp_fault


@frozen(slots=True)
class Settings:
    """
    @ivar timeout: C{qmqpd_timeout}, seconds.
    @ivar error_delay: C{qmqpd_error_delay}, seconds.
    @ivar unauthorized_time_limit: C{qmqpd_unauthorized_time_limit}, seconds, but no longer than the timeout.
    @ivar answer_time_limit: C{qmqpd_answer_time_limit}, seconds.
    @ivar request_time_limit: C{daemon_timeout}, seconds: for everything about one connection.
    @ivar wait_time_limit: C{ipc_timeout}, seconds, but no longer than the answer may take: for one wait for a
        table or for cleanup.
    @ivar in_flow_delay: C{in_flow_delay}, seconds: how long a message waits when mail arrives faster than the
        queue manager takes it.
    @ivar drain_limit: how many bytes of unwanted input are thrown away to let a client have its reply.
    @ivar soft_bounce: C{soft_bounce}.
    @ivar port_logging: C{qmqpd_client_port_logging}.
    @ivar content_limit: C{message_size_limit}, or L{None} for none.
    @ivar address_limit: C{line_length_limit}.
    @ivar verp_filter: C{verp_delimiter_filter}.
    @ivar debug_level: C{debug_peer_level}.
    @ivar treatment: what is done to local mail: C{receive_override_options}, C{content_filter}.
    @ivar remote_domain: C{remote_header_rewrite_domain}, for mail that is not local.
    @ivar limits: the limits for each client.
    @ivar max_use: C{max_use}: after so many connections the configuration is looked at.
    @ivar max_idle: C{max_idle}, seconds: likewise, when nobody has come for so long.
    @ivar proxied: whether connections come through a proxy (C{qmqpd_upstream_proxy_protocol}).
    @ivar proxy_timeout: C{qmqpd_upstream_proxy_timeout}, seconds.
    @ivar proxy_header_limit: C{qmqpd_upstream_proxy_header_limit}, bytes.
    @ivar proxy_pending_limit: C{qmqpd_upstream_proxy_pending_limit}.
    """

    timeout: float
    error_delay: float
    unauthorized_time_limit: float
    answer_time_limit: float
    request_time_limit: float
    wait_time_limit: float
    in_flow_delay: float
    drain_limit: int
    soft_bounce: bool
    port_logging: bool
    content_limit: int | None
    address_limit: int
    verp_filter: bytes
    debug_level: int
    treatment: Treatment
    remote_domain: str
    limits: LimitSettings
    max_use: int
    max_idle: float
    proxied: bool
    proxy_timeout: float
    proxy_header_limit: int
    proxy_pending_limit: int


def read_settings(config: IConfig, drain_limit: int) -> Settings:
    """
    @param config: the configuration.
    @param drain_limit: as in L{Settings}.
    @return: the settings in C{config}.
    @raise ConfigError: C{default_verp_delimiters} cannot be used.
    """
    verp_filter = config.string("verp_delimiter_filter").encode("utf-8", "surrogateescape")
    delimiters = config.string("default_verp_delimiters").encode("utf-8", "surrogateescape")
    if verp_fault(delimiters, verp_filter) is not None:
        raise ConfigError(
            f"default_verp_delimiters = {config.string('default_verp_delimiters')}: need two characters from "
            f'verp_delimiter_filter, "{config.string("verp_delimiter_filter")}"'
        )
    answer = config.seconds("qmqpd_answer_time_limit")
    return Settings(
        timeout=config.seconds("qmqpd_timeout"),
        error_delay=config.seconds("qmqpd_error_delay"),
        unauthorized_time_limit=min(
            config.seconds("qmqpd_unauthorized_time_limit"), config.seconds("qmqpd_timeout")
        ),
        answer_time_limit=answer,
        request_time_limit=config.seconds("daemon_timeout"),
        wait_time_limit=min(config.seconds("ipc_timeout"), answer),
        in_flow_delay=config.seconds("in_flow_delay"),
        drain_limit=drain_limit,
        soft_bounce=config.boolean("soft_bounce"),
        port_logging=config.boolean("qmqpd_client_port_logging"),
        content_limit=config.integer("message_size_limit") or None,
        address_limit=config.integer("line_length_limit"),
        verp_filter=verp_filter,
        debug_level=config.integer("debug_peer_level"),
        treatment=_treatment(config),
        remote_domain=config.string("remote_header_rewrite_domain").strip(),
        limits=LimitSettings(
            connections=config.integer("qmqpd_client_connection_count_limit"),
            rate=config.integer("qmqpd_client_connection_rate_limit"),
            window=config.seconds("anvil_rate_time_unit"),
            ipv4_prefix=config.integer("qmqpd_client_ipv4_prefix_length"),
            ipv6_prefix=config.integer("qmqpd_client_ipv6_prefix_length"),
            windows=config.integer("qmqpd_client_event_cache_size"),
        ),
        max_use=config.integer("max_use"),
        max_idle=config.seconds("max_idle"),
        proxied=config.string("qmqpd_upstream_proxy_protocol") != "",
        proxy_timeout=config.seconds("qmqpd_upstream_proxy_timeout"),
        proxy_header_limit=config.integer("qmqpd_upstream_proxy_header_limit"),
        proxy_pending_limit=config.integer("qmqpd_upstream_proxy_pending_limit"),
    )


def _treatment(config: IConfig) -> Treatment:
    """
    C{no_unknown_recipient_checks} is for SMTP servers; here nobody looks for recipients before the queue.
    """
    off = frozenset(config.words("receive_override_options"))
    return Treatment(
        checks="no_header_body_checks" not in off,
        mappings="no_address_mappings" not in off,
        milters="no_milters" not in off,
        content_filter=config.string("content_filter").strip(),
    )
