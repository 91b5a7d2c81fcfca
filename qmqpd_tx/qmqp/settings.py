"""
What the QMQP server reads from the configuration, once per start or reload. Pure.

Takes an L{IConfig<qmqpd_tx.interfaces.IConfig>}; gives one frozen value that a connection keeps from its
first byte to its last, so that a reload never changes the rules in mid-message. Answers to the parameters of
Postfix's qmqpd(8).
"""

from __future__ import annotations

from attrs import frozen

from qmqpd_tx.interfaces import IConfig


@frozen(slots=True)
class Settings:
    """
    @ivar timeout: C{qmqpd_timeout}, seconds.
    @ivar error_delay: C{qmqpd_error_delay}, seconds.
    @ivar unauthorized_time_limit: C{qmqpd_unauthorized_time_limit}, seconds, but no longer than the timeout.
    @ivar answer_time_limit: C{qmqpd_answer_time_limit}, seconds.
    @ivar in_flow_delay: C{in_flow_delay}, seconds: how long a message waits when mail arrives faster than the
        queue manager takes it.
    @ivar drain_limit: how many bytes of unwanted input are thrown away to let a client have its reply.
    @ivar soft_bounce: C{soft_bounce}.
    @ivar port_logging: C{qmqpd_client_port_logging}.
    @ivar content_limit: C{message_size_limit}, or L{None} for none.
    @ivar address_limit: C{line_length_limit}.
    @ivar verp_filter: C{verp_delimiter_filter}.
    """

    timeout: float
    error_delay: float
    unauthorized_time_limit: float
    answer_time_limit: float
    in_flow_delay: float
    drain_limit: int
    soft_bounce: bool
    port_logging: bool
    content_limit: int | None
    address_limit: int
    verp_filter: bytes


def read_settings(config: IConfig, drain_limit: int) -> Settings:
    """
    @param config: the configuration.
    @param drain_limit: as in L{Settings}.
    @return: the settings in C{config}.
    """
    return Settings(
        timeout=config.seconds("qmqpd_timeout"),
        error_delay=config.seconds("qmqpd_error_delay"),
        unauthorized_time_limit=min(
            config.seconds("qmqpd_unauthorized_time_limit"), config.seconds("qmqpd_timeout")
        ),
        answer_time_limit=config.seconds("qmqpd_answer_time_limit"),
        in_flow_delay=config.seconds("in_flow_delay"),
        drain_limit=drain_limit,
        soft_bounce=config.boolean("soft_bounce"),
        port_logging=config.boolean("qmqpd_client_port_logging"),
        content_limit=config.integer("message_size_limit") or None,
        address_limit=config.integer("line_length_limit"),
        verp_filter=config.string("verp_delimiter_filter").encode("utf-8", "surrogateescape"),
    )
