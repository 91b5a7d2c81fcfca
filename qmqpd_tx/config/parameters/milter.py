"""
Parameters about mail filters (milters).
"""

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="milter_buffer_limit",
        type=Type.INTEGER,
        default="262144",
        low=1024,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many bytes of a message wait for mail filters in memory; the rest waits in a file.",
    ),
    Parameter(
        name="milter_command_timeout",
        type=Type.TIME,
        default="30s",
        low=1,
        help="How long a mail filter may take for an event of the envelope.",
    ),
    Parameter(
        name="milter_connect_macros",
        type=Type.LIST,
        default="j {daemon_name} {daemon_addr} v _",
        help="Which macros mail filters get with a connection.",
    ),
    Parameter(
        name="milter_connect_timeout",
        type=Type.TIME,
        default="30s",
        low=1,
        help="How long connecting to a mail filter, and negotiating with it, may take.",
    ),
    Parameter(
        name="milter_content_timeout",
        type=Type.TIME,
        default="300s",
        low=1,
        help="How long a mail filter may take for an event of the content.",
    ),
    Parameter(
        name="milter_data_macros",
        type=Type.LIST,
        default="i",
        help="Which macros mail filters get with DATA.",
    ),
    Parameter(
        name="milter_default_action",
        type=Type.ENUM,
        default="tempfail",
        choices=("accept", "quarantine", "reject", "tempfail"),
        help="What to do with mail when a mail filter fails.",
    ),
    Parameter(
        name="milter_end_of_data_macros",
        type=Type.LIST,
        default="i",
        help="Which macros mail filters get with the body and its end.",
    ),
    Parameter(
        name="milter_end_of_header_macros",
        type=Type.LIST,
        default="i",
        help="Which macros mail filters get with each header and the end of the headers.",
    ),
    Parameter(
        name="milter_header_checks",
        type=Type.STRING,
        default="",
        help="Tables that inspect headers that mail filters add or change.",
    ),
    Parameter(
        name="milter_header_section_limit",
        type=Type.INTEGER,
        default="1048576",
        low=1024,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many bytes a header section may have that mail filters are shown.",
    ),
    Parameter(
        name="milter_helo_macros",
        type=Type.LIST,
        default="{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
        help="Which macros mail filters get with EHLO.",
    ),
    Parameter(
        name="milter_macro_daemon_name",
        type=Type.STRING,
        default="$myhostname",
        help="The macro {daemon_name}.",
    ),
    Parameter(
        name="milter_macro_defaults",
        type=Type.LIST,
        default="",
        help="Values of macros that have none, as name=value.",
    ),
    Parameter(
        name="milter_macro_v",
        type=Type.STRING,
        default="$mail_name $mail_version",
        help="The macro v.",
    ),
    Parameter(
        name="milter_mail_macros",
        type=Type.LIST,
        default="i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
        help="Which macros mail filters get with the sender.",
    ),
    Parameter(
        name="milter_packet_size_limit",
        type=Type.INTEGER,
        default="1048576",
        low=65536,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many bytes one reply of a mail filter may have.",
    ),
    Parameter(
        name="milter_protocol",
        type=Type.LIST,
        default="6",
        choices=("2", "3", "4", "6", "no_header_reply"),
        help="The version of the protocol to offer to mail filters.",
    ),
    Parameter(
        name="milter_rcpt_macros",
        type=Type.LIST,
        default="i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
        help="Which macros mail filters get with each recipient.",
    ),
    Parameter(
        name="milter_reply_count_limit",
        type=Type.INTEGER,
        default="10000",
        low=1,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many replies one mail filter may give about one message.",
    ),
    Parameter(
        name="milter_show_client",
        type=Type.BOOLEAN,
        default="no",
        own=True,
        help="Whether mail filters are told the client's name and address, rather than localhost.",
    ),
    Parameter(
        name="non_smtpd_milters",
        type=Type.LIST,
        default="",
        help="Mail filters for mail that does not come by SMTP.",
    ),
)
