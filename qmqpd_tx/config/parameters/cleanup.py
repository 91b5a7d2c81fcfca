"""
What is checked and added on the way into the queue. Answers to cleanup(8).

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER, MAXIMUM_LONG

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(name='allow_percent_hack', type=Type.BOOLEAN, default='yes', help='Rewrite user%domain as user@domain.',),
    Parameter(name='allow_untrusted_routing', type=Type.BOOLEAN, default='no', effect=False, help='Relay addresses with sender-given routes.',),
    Parameter(name='always_add_missing_headers', type=Type.BOOLEAN, default='no', help='Add From, To, Date and Message-ID to remote mail too. QMQP mail always gets them.',),
    Parameter(name='always_bcc', type=Type.STRING, default='', effect=False, help='Who gets a copy of all mail.',),
    Parameter(name='append_at_myorigin', type=Type.BOOLEAN, default='yes', help='Complete a bare user name with @$myorigin.',),
    Parameter(name='append_dot_mydomain', type=Type.BOOLEAN, default='${{$compatibility_level} <level {1} ? {yes} : {no}}', help='Complete a domain without a dot with .$mydomain.',),
    Parameter(name='body_checks', type=Type.STRING, default='', effect=False, help='Tables that inspect body lines.',),
    Parameter(name='body_checks_size_limit', type=Type.INTEGER, default='51200', low=1, high=MAXIMUM_INTEGER, effect=False, help='How much of each part body_checks sees.',),
    Parameter(name='canonical_maps', type=Type.STRING, default='', effect=False, help='Tables that rewrite addresses.',),
    Parameter(name='content_filter', type=Type.STRING, default='', effect=False, help='A transport that filters mail after it is queued.',),
    Parameter(name='default_filter_nexthop', type=Type.STRING, default='', effect=False, help='The next hop for a content filter that names none.',),
    Parameter(name='detect_8bit_encoding_header', type=Type.BOOLEAN, default='yes', help='Recognize a Content-Transfer-Encoding header.',),
    Parameter(name='disable_mime_input_processing', type=Type.BOOLEAN, default='no', effect=False, help='Treat MIME messages as plain ones.',),
    Parameter(name='disable_mime_output_conversion', type=Type.BOOLEAN, default='no', help='Never convert 8-bit mail for servers without 8BITMIME.',),
    Parameter(name='duplicate_filter_limit', type=Type.INTEGER, default='1000', low=1, high=MAXIMUM_INTEGER, effect=False, help='How many recipients are remembered to drop duplicates; 0 for no limit.',),
    Parameter(name='empty_address_recipient', type=Type.STRING, default='MAILER-DAEMON', low=1, help='Who gets mail that is addressed to the null address.',),
    Parameter(name='enable_original_recipient', type=Type.BOOLEAN, default='yes', help='Keep the address that the client gave, for X-Original-To and bounces.',),
    Parameter(name='header_address_token_limit', type=Type.INTEGER, default='10240', low=1, high=MAXIMUM_INTEGER, help='How many address parts of a header are rewritten.',),
    Parameter(name='header_checks', type=Type.STRING, default='', effect=False, help='Tables that inspect headers.',),
    Parameter(name='header_from_format', type=Type.ENUM, default='standard', choices=('standard', 'obsolete'), help='The form of a From header that is added.',),
    Parameter(name='header_size_limit', type=Type.INTEGER, default='102400', low=1, high=MAXIMUM_INTEGER, help='The longest message header, in bytes; the rest is cut off.',),
    Parameter(name='hopcount_limit', type=Type.INTEGER, default='50', low=1, high=MAXIMUM_INTEGER, help='How many Received headers a message may have, ours included.',),
    Parameter(name='in_flow_delay', type=Type.TIME, default='1s', low=0, high=10, effect=False, help='Postfix slows intake down by this when mail arrives faster than it leaves. Here intake is slowed by the disk.',),
    Parameter(name='local_header_rewrite_clients', type=Type.LIST, default='permit_inet_interfaces', effect=False, help='Clients whose headers are completed with our domain.',),
    Parameter(name='masquerade_domains', type=Type.LIST, default='', effect=False, help='Domains to strip subdomains from.',),
    Parameter(name='message_drop_headers', type=Type.LIST, default='bcc, content-length, resent-bcc, return-path', help='Headers to remove.',),
    Parameter(name='message_reject_characters', type=Type.STRING, default='', effect=False, help='Bytes that a message must not have.',),
    Parameter(name='message_size_limit', type=Type.INTEGER, default='10240000', low=0, high=MAXIMUM_LONG, help='The largest message, envelope included, in bytes; 0 for no limit.',),
    Parameter(name='message_strip_characters', type=Type.STRING, default='', effect=False, help='Bytes to remove from messages.',),
    Parameter(name='mime_boundary_length_limit', type=Type.INTEGER, default='2048', low=1, high=MAXIMUM_INTEGER, effect=False, help='How much of a MIME boundary counts.',),
    Parameter(name='mime_header_checks', type=Type.STRING, default='$header_checks', effect=False, help='Tables that inspect MIME headers.',),
    Parameter(name='mime_nesting_limit', type=Type.INTEGER, default='100', low=1, high=MAXIMUM_INTEGER, effect=False, help='How deep MIME parts are followed.',),
    Parameter(name='nested_header_checks', type=Type.STRING, default='$header_checks', effect=False, help='Tables that inspect headers of attached messages.',),
    Parameter(name='non_smtpd_milters', type=Type.LIST, default='', effect=False, help='Milters for mail that does not come by SMTP.',),
    Parameter(name='queue_file_attribute_count_limit', type=Type.INTEGER, default='100', low=1, high=MAXIMUM_INTEGER, help='How many attributes a queue file may have.',),
    Parameter(name='receive_override_options', type=Type.LIST, default='', choices=('no_unknown_recipient_checks', 'no_address_mappings', 'no_header_body_checks', 'no_milters'), effect=False, help='What to leave out on the way in.',),
    Parameter(name='recipient_bcc_maps', type=Type.STRING, default='', effect=False, help='Who gets a copy, by recipient.',),
    Parameter(name='recipient_canonical_maps', type=Type.STRING, default='', effect=False, help='Tables that rewrite recipients.',),
    Parameter(name='remote_header_rewrite_domain', type=Type.STRING, default='', effect=False, help="The domain to complete other clients' headers with.",),
    Parameter(name='resolve_dequoted_address', type=Type.BOOLEAN, default='yes', help='Route by the unquoted local part.',),
    Parameter(name='resolve_null_domain', type=Type.BOOLEAN, default='no', help='Accept user@ as local.',),
    Parameter(name='resolve_numeric_domain', type=Type.BOOLEAN, default='no', help='Take user@1.2.3.4 for user@[1.2.3.4].',),
    Parameter(name='sender_bcc_maps', type=Type.STRING, default='', effect=False, help='Who gets a copy, by sender.',),
    Parameter(name='sender_canonical_maps', type=Type.STRING, default='', effect=False, help='Tables that rewrite senders.',),
    Parameter(name='strict_7bit_headers', type=Type.BOOLEAN, default='no', effect=False, help='Refuse 8-bit bytes in headers.',),
    Parameter(name='strict_8bitmime', type=Type.BOOLEAN, default='no', effect=False, help='Both of strict_7bit_headers and strict_8bitmime_body.',),
    Parameter(name='strict_8bitmime_body', type=Type.BOOLEAN, default='no', effect=False, help='Refuse 8-bit bytes in bodies without a MIME header that says so.',),
    Parameter(name='strict_rfc821_envelopes', type=Type.BOOLEAN, default='no', effect=False, help='Insist on addresses in angle brackets.',),
    Parameter(name='swap_bangpath', type=Type.BOOLEAN, default='yes', help='Rewrite site!user as user@site.',),
    Parameter(name='undisclosed_recipients_header', type=Type.STRING, default='', help='A header to add when a message has no recipient header; none when empty.',),
)
