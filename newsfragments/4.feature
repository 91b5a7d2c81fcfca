Intake in full. Addresses in envelopes and headers are mapped: ``canonical_maps`` and its relatives, masquerading, virtual aliases, automatic copies (``always_bcc``, ``sender_bcc_maps``, ``recipient_bcc_maps``), of which a sender hears nothing. ``header_checks``, ``mime_header_checks``, ``nested_header_checks``, ``body_checks`` and ``milter_header_checks`` with all of their actions, in one pass and bounded memory; ``strict_8bitmime`` and its relatives; ``message_reject_characters`` and ``message_strip_characters``. ``HOLD``: such mail never passes through ``incoming``.

Mail filters: ``non_smtpd_milters`` with versions 2 to 6 of the milter protocol, tried with opendkim and rspamd. Content filters: ``content_filter``, and ``FILTER`` in checks.

Lookup tables of all of Postfix's types but those of LDAP, MySQL, memcache, NIS and DBM: ``texthash``, ``inline``, ``static``, ``environ``, ``fail``, ``cidr``, ``regexp``, ``pcre``, ``hash``, ``btree``, ``lmdb``, ``cdb``, ``sqlite``, ``pgsql``, ``tcp``, ``socketmap``, ``unix``, ``pipemap``, ``unionmap``, ``randmap``, ``proxy``; others by plugin. ``qmqpd-tx postmap`` asks and builds them. A table that cannot answer is told apart from one that does not have the key: clients are asked to try again, and mail waits. Patterns cannot take for ever. Some need a library: extras ``berkeley``, ``lmdb``, ``pcre``, ``pgsql``.

Routing by sender (``sender_dependent_relayhost_maps``, ``sender_dependent_default_transport_maps``), ``relocated_maps``, recipient tables (``resolve_reject_unknown_recipients``), and tables and lists that ask a server.

qmqpd: ``debug_peer_list``, limits for each client (``qmqpd_client_connection_count_limit``, ``qmqpd_client_connection_rate_limit``), the PROXY protocol (``qmqpd_upstream_proxy_protocol``), time limits for all of a request, ``receive_override_options``, ``content_filter`` and ``cleanup_service_name`` for each line of master.cf, ``remote_header_rewrite_domain`` with ``qmqpd_local_header_rewrite_clients``.

Changed tables and a changed configuration are picked up by themselves (``table_check_interval``, ``table_close_delay``, ``max_use``, ``max_idle``); what makes no sense is refused, and the old one stays in force. Large tables are read in a thread, while mail is taken as before. Options of master.cf that mean nothing are named at the start.

Addresses in the log are quoted (``info_log_address_format``). Automatic copies stay silent when a message is queued again by ``postsuper -r``.

SMTPUTF8 and internationalized domain names: ``smtputf8_enable``, ``smtputf8_autodetect_classes``.

Mail that arrives in a steady stream is delivered as it comes: while mail arrives, the queue manager also takes the time that the service would be idle, and no longer only ``qmgr_intake_share`` of it.

Addresses in headers and lines of table files are read right by Python 3.11.0 to 3.11.4, too, which Debian 12 has.

Patterns of ``pcre:`` tables are bounded for the whole key (``pattern_match_limit``) and, all long searches of a table together, in time (``pattern_time_limit``). Limits of the PROXY protocol are parameters (``qmqpd_upstream_proxy_header_limit``, ``qmqpd_upstream_proxy_pending_limit``).

Mail for unknown users of virtual alias domains bounces whatever ``transport_maps`` say. ``@domain`` as a result of a map keeps an address extension once. Non-ASCII letters of a domain stay what they are. Quotes around a local part without a domain keep ``!``, ``%`` and ``@`` in it from being read as a route.

Postmasters hear of automatic copies that fail; notices to them come from ``double_bounce_sender@$myhostname``. Mail for that address is discarded where it is local, and nowhere else. A notice that cleanup refuses is tried again without a traceback in the log. Senders with unusual domains are for the next server to judge.

``mime_nesting_limit`` is enforced wherever headers are looked up; ``strict_8bitmime_body`` also sees preambles; of several flaws in its form a message is refused for the gravest. The ``Received`` header made here is looked up also when another header has ended the inspection.

Rules may stand in ``regexp:{...}`` on postmap's command line; several ``!`` may have white space between them; lines of texthash that are not UTF-8, and what follows a NUL, are left out; a negative ``expansion_limit`` is no limit. Warnings about texthash lines have Postfix's words. A parameter that is set twice is named. ``postconf -d`` ignores main.cf, and ``postconf -M`` prints all lines.

Content that was treated otherwise than in Postfix: ``From`` lines next to carriage returns, stripped characters, ``no_header_body_checks``, MIME headers that are dropped or replaced, ``header_size_limit`` after rewriting, the order of hops, checks and disallowed characters, names in log lines of checks.
