"""
The QMQP server: who may connect, for how long, and what is refused. Answers to qmqpd(8).

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="anvil_rate_time_unit",
        type=Type.TIME,
        default="60s",
        low=1,
        help="The window in which the connections of a client are counted.",
    ),
    Parameter(
        name="cleanup_service_name",
        type=Type.STRING,
        default="cleanup",
        low=1,
        help="The cleanup service of master.cf that a qmqpd service hands its mail to.",
    ),
    Parameter(
        name="default_verp_delimiters",
        type=Type.STRING,
        default="+=",
        help=(
            "The two VERP delimiters to use when a request for VERP names none. QMQP requests name theirs; "
            "the value is checked."
        ),
    ),
    Parameter(
        name="disable_verp_bounces",
        type=Type.BOOLEAN,
        default="no",
        help="Send one bounce to the plain sender instead of one for each recipient's VERP address.",
    ),
    Parameter(
        name="line_length_limit",
        type=Type.INTEGER,
        default="2048",
        low=512,
        high=MAXIMUM_INTEGER,
        help="The longest address or line taken from a client in one piece.",
    ),
    Parameter(
        name="qmqpd_answer_time_limit",
        type=Type.TIME,
        default="60s",
        low=1,
        own=True,
        help=(
            "A client gets its answer within this time of its last byte; a commit that is slower "
            "is abandoned and answered Z."
        ),
    ),
    Parameter(
        name="qmqpd_authorized_clients",
        type=Type.LIST,
        default="",
        help=(
            "Clients that may use the QMQP server: addresses, networks, host names, .domains, "
            "/file; ! excludes. None by default."
        ),
    ),
    Parameter(
        name="qmqpd_client_connection_count_limit",
        type=Type.INTEGER,
        default="0",
        low=0,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many connections one client may have at a time; 0 for no limit.",
    ),
    Parameter(
        name="qmqpd_client_connection_rate_limit",
        type=Type.INTEGER,
        default="0",
        low=0,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many connections one client may make in anvil_rate_time_unit; 0 for no limit.",
    ),
    Parameter(
        name="qmqpd_client_event_cache_size",
        type=Type.INTEGER,
        default="100000",
        low=1,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many clients are remembered for qmqpd_client_connection_rate_limit.",
    ),
    Parameter(
        name="qmqpd_client_event_limit_exceptions",
        type=Type.LIST,
        default="",
        own=True,
        help="Clients to which no limit applies, written as in qmqpd_authorized_clients.",
    ),
    Parameter(
        name="qmqpd_client_ipv4_prefix_length",
        type=Type.INTEGER,
        default="32",
        low=0,
        high=32,
        own=True,
        help="How many bits of an IPv4 address tell clients apart when they are counted.",
    ),
    Parameter(
        name="qmqpd_client_ipv6_prefix_length",
        type=Type.INTEGER,
        default="64",
        low=0,
        high=128,
        own=True,
        help="How many bits of an IPv6 address tell clients apart when they are counted.",
    ),
    Parameter(
        name="qmqpd_client_name_cache_size",
        type=Type.INTEGER,
        default="5000",
        low=0,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many client names are kept in memory.",
    ),
    Parameter(
        name="qmqpd_client_name_cache_time",
        type=Type.TIME,
        default="300s",
        low=0,
        own=True,
        help="The longest time to keep a confirmed client name; less when the DNS says so.",
    ),
    Parameter(
        name="qmqpd_client_name_timeout",
        type=Type.TIME,
        default="5s",
        low=1,
        own=True,
        help="Time limit for the look-up of a client's name; the client is called unknown then.",
    ),
    Parameter(
        name="qmqpd_client_name_unknown_time",
        type=Type.TIME,
        default="30s",
        low=0,
        own=True,
        help="How long to keep the answer that a client has no name.",
    ),
    Parameter(
        name="qmqpd_client_port_logging",
        type=Type.BOOLEAN,
        default="no",
        help="Log the client's port after its name and address.",
    ),
    Parameter(
        name="qmqpd_drain_limit",
        type=Type.INTEGER,
        default="33554432",
        low=0,
        high=MAXIMUM_INTEGER,
        own=True,
        help=(
            "How many bytes of unwanted input are thrown away, for each connection, so that a client that "
            "sends on regardless has its negative reply."
        ),
    ),
    Parameter(
        name="qmqpd_error_delay",
        type=Type.TIME,
        default="1s",
        low=0,
        help="Pause before a negative reply to a QMQP client.",
    ),
    Parameter(
        name="qmqpd_local_header_rewrite_clients",
        type=Type.LIST,
        default="static:all",
        own=True,
        help="Clients whose headers are completed with our domain; as local_header_rewrite_clients.",
    ),
    Parameter(
        name="qmqpd_timeout",
        type=Type.TIME,
        default="300s",
        low=1,
        help="Time limit for each read from and each write to a QMQP client.",
    ),
    Parameter(
        name="qmqpd_unauthorized_time_limit",
        type=Type.TIME,
        default="5s",
        low=0,
        own=True,
        help=(
            "How long a client that may not use the service is left to collect its negative reply; others "
            "have qmqpd_timeout."
        ),
    ),
    Parameter(
        name="qmqpd_upstream_proxy_header_limit",
        type=Type.INTEGER,
        default="4096",
        low=536,
        high=65551,
        own=True,
        help="The longest header of the PROXY protocol that is read from a proxy, in bytes.",
    ),
    Parameter(
        name="qmqpd_upstream_proxy_pending_limit",
        type=Type.INTEGER,
        default="1000",
        low=1,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many connections of a proxy may wait for their header; more are dropped at once.",
    ),
    Parameter(
        name="qmqpd_upstream_proxy_protocol",
        type=Type.ENUM,
        default="",
        choices=("", "haproxy"),
        own=True,
        help="How a proxy in front of this service says who the client is: haproxy, or none.",
    ),
    Parameter(
        name="qmqpd_upstream_proxy_timeout",
        type=Type.TIME,
        default="5s",
        low=1,
        own=True,
        help="How long a proxy may take to say who the client is.",
    ),
    Parameter(
        name="smtpd_client_port_logging",
        type=Type.BOOLEAN,
        default="no",
        effect=False,
        help="As qmqpd_client_port_logging, for SMTP clients.",
    ),
    Parameter(
        name="smtpd_peername_lookup",
        type=Type.BOOLEAN,
        default="yes",
        effect=False,
        help="Look up client host names.",
    ),
    Parameter(
        name="smtputf8_autodetect_classes",
        type=Type.LIST,
        default="sendmail, verify",
        choices=("all", "bounce", "forward", "notify", "qmqpd", "sendmail", "smtpd", "verify"),
        help="Where mail comes from that is looked at for what needs SMTPUTF8; qmqpd is mail by QMQP.",
    ),
    Parameter(
        name="soft_bounce",
        type=Type.BOOLEAN,
        default="no",
        help="Safety net while testing: every permanent refusal becomes a temporary one.",
    ),
    Parameter(
        name="verp_delimiter_filter",
        type=Type.STRING,
        default="-=+",
        low=1,
        help="Characters that are accepted as VERP delimiters.",
    ),
)
