"""
Identity of the host, log, processes, network interfaces. Answers to master(8) and postlogd(8).

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="alias_database",
        type=Type.STRING,
        default="hash:/etc/aliases",
        effect=False,
        help="Alias tables that newaliases rebuilds.",
    ),
    Parameter(
        name="alias_maps",
        type=Type.STRING,
        default="hash:/etc/aliases",
        effect=False,
        help="Alias tables of local delivery.",
    ),
    Parameter(
        name="allow_min_user",
        type=Type.BOOLEAN,
        default="no",
        help="Allow addresses that start with a hyphen.",
    ),
    Parameter(
        name="compatibility_level",
        type=Type.STRING,
        default="0",
        low=1,
        help="The Postfix version whose defaults to use.",
    ),
    Parameter(
        name="daemon_timeout",
        type=Type.TIME,
        default="18000s",
        low=1,
        help="A delivery that takes longer is cancelled, and so is the request of a QMQP client.",
    ),
    Parameter(
        name="debug_peer_level",
        type=Type.INTEGER,
        default="2",
        low=1,
        high=MAXIMUM_INTEGER,
        help="How verbose the log is for peers in debug_peer_list: 1 shows netstrings and replies, 2 reads.",
    ),
    Parameter(
        name="debug_peer_list",
        type=Type.LIST,
        default="",
        help="Clients whose connections are logged verbosely.",
    ),
    Parameter(
        name="default_database_type",
        type=Type.STRING,
        default="hash",
        low=1,
        help="The table type for postmap when none is given.",
    ),
    Parameter(
        name="default_process_limit",
        type=Type.INTEGER,
        default="100",
        low=1,
        high=MAXIMUM_INTEGER,
        help=(
            "The process limit of master.cf services that give none; here the limit of "
            "simultaneous connections or deliveries."
        ),
    ),
    Parameter(
        name="delay_logging_resolution_limit",
        type=Type.INTEGER,
        default="2",
        low=0,
        high=6,
        help="Digits after the point in logged delays.",
    ),
    Parameter(
        name="dns_resolver_addresses",
        type=Type.LIST,
        default="",
        own=True,
        help=(
            "The DNS servers to ask: address, address:port or [address]:port. "
            "Empty: those in /etc/resolv.conf."
        ),
    ),
    Parameter(
        name="enable_idna2003_compatibility",
        type=Type.BOOLEAN,
        default="no",
        help="Look domains up in the DNS as IDNA2003 wrote them, where IDNA2008 differs.",
    ),
    Parameter(
        name="export_environment",
        type=Type.LIST,
        default="TZ MAIL_CONFIG LANG",
        effect=False,
        help="Environment variables that Postfix passes on to commands.",
    ),
    Parameter(
        name="helpful_warnings",
        type=Type.BOOLEAN,
        default="yes",
        help="Warn at start-up about settings that do nothing or look wrong.",
    ),
    Parameter(
        name="import_environment",
        type=Type.LIST,
        default=(
            "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ XAUTHORITY DISPLAY LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME"
        ),
        help="The environment variables that environ: tables have: names, and name=value.",
    ),
    Parameter(
        name="inet_interfaces",
        type=Type.LIST,
        default="all",
        help=(
            "Local addresses that services without a host part listen on, and that count as this "
            "host: all, loopback-only, or a list."
        ),
    ),
    Parameter(
        name="inet_protocols",
        type=Type.LIST,
        default="all",
        choices=("all", "ipv4", "ipv6"),
        help="Network protocols to use.",
    ),
    Parameter(
        name="info_log_address_format",
        type=Type.ENUM,
        default="external",
        choices=("external", "internal"),
        help="Log addresses quoted as on the wire (external) or plain (internal).",
    ),
    Parameter(
        name="ipc_timeout",
        type=Type.TIME,
        default="3600s",
        low=1,
        help="The longest wait for a table or for cleanup while a client is served; then it is answered Z.",
    ),
    Parameter(
        name="mail_name",
        type=Type.STRING,
        default="Postfix",
        low=1,
        help="The mail system's name in Received headers, greetings and bounces.",
    ),
    Parameter(
        name="mail_owner",
        type=Type.STRING,
        default="postfix",
        low=1,
        effect=False,
        help="The account that owns the queue. Use twistd's --uid instead.",
    ),
    Parameter(
        name="mail_version",
        type=Type.STRING,
        default="",
        low=1,
        help="The version of this program.",
    ),
    Parameter(
        name="maillog_file",
        type=Type.STRING,
        default="",
        help="Write the log to this file, or to /dev/stdout or /dev/stderr, instead of syslog.",
    ),
    Parameter(
        name="maillog_file_prefixes",
        type=Type.LIST,
        default="/var, /dev/stdout",
        help="Where maillog_file may be.",
    ),
    Parameter(
        name="maillog_format",
        type=Type.ENUM,
        default="postfix",
        choices=("postfix", "json"),
        own=True,
        help="The shape of log lines: Postfix's, or a JSON object each.",
    ),
    Parameter(
        name="max_idle",
        type=Type.TIME,
        default="100s",
        low=1,
        help="A service that has had nothing to do for so long looks whether main.cf has changed.",
    ),
    Parameter(
        name="max_use",
        type=Type.INTEGER,
        default="100",
        low=1,
        high=MAXIMUM_INTEGER,
        help="After so many connections a service looks whether main.cf has changed.",
    ),
    Parameter(
        name="multi_instance_name",
        type=Type.STRING,
        default="",
        help="The name of this instance, when there are several on a host.",
    ),
    Parameter(
        name="mydomain",
        type=Type.HOSTNAME,
        default="",
        help=(
            "The internet domain of this host; the default is myhostname without its first label, "
            "or localdomain."
        ),
    ),
    Parameter(
        name="myhostname",
        type=Type.HOSTNAME,
        default="",
        help="The internet name of this host; the default comes from the operating system.",
    ),
    Parameter(
        name="mynetworks",
        type=Type.LIST,
        default="127.0.0.0/8 [::1]/128",
        help="Trusted networks: what permit_mynetworks means.",
    ),
    Parameter(
        name="mynetworks_style",
        type=Type.ENUM,
        default="${{$compatibility_level} <level {2} ? {subnet} : {host}}",
        choices=("host", "subnet", "class"),
        effect=False,
        help="How the default of mynetworks is made.",
    ),
    Parameter(
        name="myorigin",
        type=Type.STRING,
        default="$myhostname",
        low=1,
        help="The domain that mail made on this host appears to come from.",
    ),
    Parameter(
        name="owner_request_special",
        type=Type.BOOLEAN,
        default="yes",
        help=(
            "Whether owner-name and name-request addresses are never taken apart at the recipient_delimiter."
        ),
    ),
    Parameter(
        name="parent_domain_matches_subdomains",
        type=Type.LIST,
        default=(
            "debug_peer_list,fast_flush_domains,mynetworks,permit_mx_backup_networks,"
            "qmqpd_authorized_clients,relay_domains,smtpd_access_maps"
        ),
        help="Lists in which example.com also matches names under it.",
    ),
    Parameter(
        name="pattern_match_limit",
        type=Type.INTEGER,
        default="1000000",
        low=1000,
        high=10000000,
        own=True,
        help="How many steps a pattern of a pcre: table may take to search one key, before the lookup fails.",
    ),
    Parameter(
        name="pattern_time_limit",
        type=Type.TIME,
        default="1s",
        low=1,
        own=True,
        help=(
            "How much time the searches of a pcre: table that take many steps may take together, before they "
            "fail; a tenth of the time that passes is added again."
        ),
    ),
    Parameter(
        name="process_id",
        type=Type.STRING,
        default="",
        help="Read-only: the process id, for use in expressions.",
    ),
    Parameter(
        name="process_name",
        type=Type.STRING,
        default="",
        help="Read-only: the name of the program, for use in expressions.",
    ),
    Parameter(
        name="proxy_interfaces",
        type=Type.LIST,
        default="",
        help=(
            "Addresses at which this host gets mail through a proxy or address translator; they "
            "count as this host."
        ),
    ),
    Parameter(
        name="recipient_delimiter",
        type=Type.STRING,
        default="",
        help="Characters that separate a user name from its extension.",
    ),
    Parameter(
        name="service_name",
        type=Type.STRING,
        default="",
        help="Read-only: the name of the master.cf service, for use in expressions.",
    ),
    Parameter(
        name="setgid_group",
        type=Type.STRING,
        default="postdrop",
        low=1,
        effect=False,
        help="The group of the mail submission commands.",
    ),
    Parameter(
        name="stress",
        type=Type.STRING,
        default="",
        effect=False,
        help="Set by Postfix under load, for use in expressions.",
    ),
    Parameter(
        name="syslog_facility",
        type=Type.ENUM,
        default="mail",
        choices=(
            "auth",
            "authpriv",
            "cron",
            "daemon",
            "ftp",
            "kern",
            "lpr",
            "mail",
            "news",
            "security",
            "syslog",
            "user",
            "uucp",
            "local0",
            "local1",
            "local2",
            "local3",
            "local4",
            "local5",
            "local6",
            "local7",
        ),
        help="The syslog facility of the log.",
    ),
    Parameter(
        name="syslog_name",
        type=Type.STRING,
        default="${multi_instance_name?{$multi_instance_name}:{postfix}}",
        low=1,
        help="The name in front of the program's in log lines, as in postfix/smtp.",
    ),
)
