"""
What the router is asked beside Postfix: senders, moved users, exceptions by table, tables that cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen


@frozen(slots=True)
class Case:
    """
    A configuration, and what is asked of it: each sender with each recipient.

    @ivar settings: of main.cf; C{{folder}} is that of L{FILES}.
    """

    settings: Mapping[str, str]
    recipients: Sequence[str]
    senders: Sequence[str] = ("",)


FILES: Mapping[str, str] = {
    "sender_hosts": """\
u@a.test [ua]
u+x@a.test [ux]
@a.test [atA]
a.test [plain]
<> [null]
d@a.test DUNNO
bare [bare]
m@m.test\t[one], [two]
nobody [nob]
@c.test [c]:25
dd@c.test dunno
sp@a.test relay:[x]
u2@origin.test [u2o]
"q u"@a.test [quoted]
a,b@a.test [bare]
@[127.0.0.1] [literal]
""",
    "sender_transports": """\
u@a.test slow:[ua]
@a.test slow:
<> null:n
d@a.test DUNNO
e@a.test error:5.7.1 no
en@a.test error
r@a.test retry:4.7.1 later
x@a.test smtp
n@a.test :onlyhop
c@a.test :
nobody nob:
long@a.test discard:silently gone
""",
    "moved": """\
u@a.test new@b.test
loc local place
@dom.test domain moved
dom2.test never
u@va.test nv
user@relay.test here
user@tr.test gone
user+ext@x.test ext
user@x.test user
user@err.test 5.1.1 code first
long@a.test call +1 555
  and more
mailer-daemon@relay.test not here
both@err2.test there
"q u"@a.test quoted
a,b@a.test bare
""",
    "moved_patterns": "/^(.*)@re\\.test$/ $1@new.test\n/^loc$/ never\n/@p\\.test$/ fixed\n",
    "transport_patterns": """\
/^(.*)@(re2|part)\\.test$/ slow:$1
if /part/
!/nothing/ DUNNO$$
/^part(.test)$/ slow:part${1}
endif
/^(.*)@re2\\.test$/ slow:fixed
/^re3\\.test$/ slow:dom
/^\\*$/ slow:star
/^u\\+e@ext\\.test$/ slow:whole
/^"q u"@/ slow:quoted
/^a,b@/ slow:bare
/^MAILER-DAEMON@relay\\.test$/ slow:null
""",
    "transport_more": """\
re4.test slow:four
u@re2.test slow:second
re2.test slow:domain
u@ext.test slow:part
""",
    "sender_patterns": """\
/^(.)@re2\\.test$/ fixed$1
/^x@re2\\.test$/ fixed
/^@re3.test$/ at
/^re4\\.test$/ domain
/^<>$/ null
/^a,b@/ bare
""",
    "sender_transport_patterns": "/(.)@re2/ slow:$1\n/@re2/ slow:two\n/(.)@re3/ slow:$(1)\n",
    "aliases": "va.test anything\nu@va.test x@y.test\n",
    "mailboxes": "vmb.test x\nu@vmb.test x\n",
    "relay_list": "rel.test\n!not.rel2.test .rel2.test\n",
}

_SENDERS = (
    "",
    "u@a.test",
    "u+x@a.test",
    "u+y@a.test",
    "v@a.test",
    "d@a.test",
    "e@a.test",
    "en@a.test",
    "r@a.test",
    "x@a.test",
    "sp@a.test",
    "long@a.test",
    "bare@origin.test",
    "bare@relay.test",
    "bare@other.test",
    "bare",
    "m@m.test",
    "U@A.TEST",
    "q@x.a.test",
    "dd@c.test",
    "u2",
    "e@c.test",
    "q u@a.test",
    "a,b@a.test",
    "s@[127.0.0.1]",
)

_EXCEPTIONS = "inline:{{ {{keep.test=:}}, {{nh.test=:nh}}, {{tr.test=slow:}}, {{user@e.test=:own}} }}"

_BY_SENDER = {
    "sender_dependent_relayhost_maps": "texthash:{folder}/sender_hosts",
    "sender_dependent_default_transport_maps": "texthash:{folder}/sender_transports",
    "transport_maps": _EXCEPTIONS,
    "relayhost": "rh.test",
    "recipient_delimiter": "+",
    "relay_domains": "rel.test",
    "mydestination": "relay.test",
    "virtual_mailbox_domains": "vmb.test",
    "virtual_alias_domains": "va.test",
    "myorigin": "origin.test",
}

_EVERY_CLASS = ("x@e.test", "user@e.test", "x@rel.test", "x@relay.test", "x@vmb.test", "x@va.test")

CASES: Mapping[str, Case] = {
    "sender's relayhost": Case(
        {
            **_BY_SENDER,
            "sender_dependent_default_transport_maps": "",
        },
        _EVERY_CLASS,
        _SENDERS,
    ),
    "sender's transport": Case(
        {**_BY_SENDER, "sender_dependent_relayhost_maps": ""},
        (*_EVERY_CLASS, "x@keep.test", "x@nh.test", "x@tr.test"),
        _SENDERS,
    ),
    "both, and a next hop by default": Case(
        {
            **_BY_SENDER,
            "default_transport": "smtp:deft",
            "relay_transport": "relay:relt",
            "empty_address_default_transport_maps_lookup_key": "nobody",
            "empty_address_relayhost_maps_lookup_key": "nobody",
        },
        (*_EVERY_CLASS, "x@keep.test", "x@nh.test", "x@tr.test"),
        _SENDERS,
    ),
    "both, without relayhost": Case(
        {**_BY_SENDER, "relayhost": "", "empty_address_relayhost_maps_lookup_key": "k@a.test"},
        (*_EVERY_CLASS, "x@keep.test"),
        _SENDERS,
    ),
    "sender patterns": Case(
        {"sender_dependent_relayhost_maps": "regexp:{folder}/sender_patterns", "mydestination": "relay.test"},
        ("x@e.test",),
        ("", "x@re2.test", "x@re3.test", "x@re4.test", "a,b@c.test"),
    ),
    "moved": Case(
        {
            "relocated_maps": "texthash:{folder}/moved",
            "mydestination": "relay.test",
            "recipient_delimiter": "+",
            "transport_maps": "inline:{{ {{user@tr.test=slow:}}, {{err2.test=error:5.7.1 x}} }}",
            "virtual_alias_domains": "va.test",
            "virtual_mailbox_domains": "vmb.test",
            "myorigin": "origin.test",
        },
        (
            "",
            "u@a.test",
            "v@a.test",
            "U+x@A.test",
            "loc@relay.test",
            "loc+x@relay.test",
            "loc@origin.test",
            "loc",
            "loc@other.test",
            "loc@[127.0.0.1]",
            "u@dom.test",
            "u@dom2.test",
            "u@va.test",
            "x@va.test",
            "user@relay.test",
            "user@tr.test",
            "user+ext@x.test",
            "user+foo@x.test",
            "user@err.test",
            "both@err2.test",
            "long@a.test",
            "u@sub.dom.test",
            "u%a.test@relay.test",
            "a.test!u@relay.test",
            "q u@a.test",
            "a,b@a.test",
            "a,b+c@a.test",
            "u@..a.test",
        ),
    ),
    "moved by patterns": Case(
        {"relocated_maps": "regexp:{folder}/moved_patterns", "mydestination": "relay.test"},
        ("u@re.test", "u+x@re.test", "loc@relay.test", "a@p.test", "b@q.test"),
    ),
    "transport patterns": Case(
        {
            "transport_maps": "regexp:{folder}/transport_patterns, texthash:{folder}/transport_more",
            "recipient_delimiter": "+",
            "mydestination": "relay.test",
        },
        (
            "",
            "u@re2.test",
            "x@re2.test",
            "u@re3.test",
            "u@re4.test",
            "u+e@ext.test",
            "u+f@ext.test",
            "q u@e.test",
            "a,b@e.test",
            "u@none.test",
            "u@part.test",
            "u@relay.test",
        ),
    ),
    "patterns in unions": Case(
        {
            "transport_maps": "unionmap:{{regexp:{folder}/transport_patterns}}",
            "sender_dependent_default_transport_maps": "pcre:{folder}/sender_transport_patterns",
            "mydestination": "relay.test",
        },
        ("u@re2.test", "u@part.test", "u@none.test"),
        ("", "x@re2.test", "x@re3.test"),
    ),
    "unknown, without the table's name": Case(
        {"virtual_alias_domains": "va.test", "show_user_unknown_table_name": "no"}, ("u@va.test", "u@e.test")
    ),
    "domains in two lists": Case(
        {
            "mydestination": "d.test, both.test",
            "virtual_alias_domains": "both.test, vboth.test",
            "virtual_mailbox_domains": "both.test, vboth.test, vrel.test",
            "relay_domains": "vrel.test",
        },
        ("u@d.test", "u@both.test", "u@vboth.test", "u@vrel.test"),
    ),
    "tables of addresses as lists of domains": Case(
        {
            "virtual_alias_maps": "texthash:{folder}/aliases",
            "virtual_mailbox_maps": "texthash:{folder}/mailboxes",
            "relay_domains": "{folder}/relay_list",
            "parent_domain_matches_subdomains": "",
            "mydestination": "relay.test",
        },
        (
            "u@va.test",
            "x@va.test",
            "u@sub.va.test",
            "u@vmb.test",
            "x@vmb.test",
            "u@rel.test",
            "u@sub.rel.test",
            "u@x.rel2.test",
            "u@not.rel2.test",
        ),
    ),
    "transport_maps cannot say": Case(
        {
            "transport_maps": "inline:{{ {{known.test=slow:}} }}, fail:x",
            "mydestination": "relay.test",
        },
        ("u@e.test", "u@relay.test", "u@bad..test"),
    ),
    "relocated_maps cannot say": Case(
        {"relocated_maps": "inline:{{ {{u@known.test=x}} }}, fail:x", "mydestination": "relay.test"},
        ("u@e.test", "u@known.test", "u@relay.test"),
    ),
    "mydestination cannot say": Case({"mydestination": "known.test, fail:x"}, ("u@e.test", "u@known.test")),
    "virtual_alias_domains cannot say": Case(
        {"virtual_alias_domains": "va.test, fail:x", "mydestination": "relay.test"},
        ("u@e.test", "u@va.test", "u@relay.test"),
    ),
    "relay_domains cannot say": Case(
        {"relay_domains": "rel.test, fail:x", "mydestination": "relay.test"},
        ("u@e.test", "u@rel.test", "u@relay.test"),
    ),
    "sender_dependent_relayhost_maps cannot say": Case(
        {
            "sender_dependent_relayhost_maps": "inline:{{ {{u@known.test=x}} }}, fail:x",
            "mydestination": "relay.test",
            "relay_domains": "rel.test",
        },
        ("u@e.test", "u@rel.test", "u@relay.test"),
        ("", "u@known.test", "u@a.test"),
    ),
    "sender_dependent_default_transport_maps cannot say": Case(
        {
            "sender_dependent_default_transport_maps": "inline:{{ {{u@known.test=slow:x}} }}, fail:x",
            "mydestination": "relay.test",
            "relay_domains": "rel.test",
        },
        ("u@e.test", "u@rel.test", "u@relay.test"),
        ("", "u@known.test", "u@a.test"),
    ),
    "virtual alias domains are not overridden": Case(
        {
            "virtual_alias_domains": "va.test, vb.test",
            "transport_maps": "inline:{{ {{va.test=slow:}}, {{u@vb.test=:x}}, {{*=smtp:[hub]}} }}",
            "relocated_maps": "inline:{{ {{moved@va.test=there}} }}",
            "mydestination": "relay.test",
        },
        ("u@va.test", "u@vb.test", "x@vb.test", "moved@va.test", "u@e.test"),
    ),
    "nor deferred": Case(
        {"virtual_alias_domains": "va.test", "transport_maps": "fail:x"}, ("u@va.test", "u@e.test")
    ),
    "errors by class": Case(
        {
            "local_transport": "error",
            "relay_transport": "error:",
            "virtual_transport": "retry",
            "default_transport": "retry:",
            "relay_domains": "rel.test",
            "virtual_mailbox_domains": "vmb.test",
            "mydestination": "relay.test",
            "sender_dependent_default_transport_maps": "inline:{{ {{@a.test=error}} }}",
            "transport_maps": "inline:{{ {{keep.test=:}}, {{err.test=error:}}, {{retry.test=retry}} }}",
        },
        (
            "u@relay.test",
            "u@Rel.test",
            "u@vmb.test",
            "u@Keep.test",
            "u@err.test",
            "u@retry.test",
            "u@e.test",
        ),
        ("", "u@a.test"),
    ),
    "final dots, and an origin without dots": Case(
        {
            "append_dot_mydomain": "yes",
            "mydomain": "my.test",
            "myorigin": "h",
            "mydestination": "relay.test, here.my.test",
        },
        (
            "a",
            "a b!c",
            "a@k",
            "a@k.",
            "a%k@relay.test",
            "a%k.@relay.test",
            "k!a@relay.test",
            "k.!a@relay.test",
            "a@k@relay.test",
            "a@k.@relay.test",
            "a%k@here",
            "a%k@here.",
            "k!a@b!c@relay.test",
            "a%b.",
        ),
    ),
    "literals": Case(
        {"mydestination": "relay.test"},
        (
            "a@[0.0.0.0]",
            "a@[0.1.1.1]",
            "a@[IPv6:::ffff:127.0.0.1]",
            "a@[IPv6:::ffff:7f00:1]",
            "a@[IPv6:::ffff:127.0.0.2]",
            "a%b@[IPv6:::ffff:7f00:1]",
            "a@[IPv6:::127.0.0.1]",
            "a@[IPv6:1:2:3:4:5:6:7::]",
            "a@[IPv6:::2:3:4:5:6:7:8]",
            "a@[IPv6:::2:3:4:5:6:1.2.3.4]",
            "a@[IPv6:1:2:3::5:6:7:8]",
            "a@[IPv6:1:2:3:4:5::1.2.3.4]",
            "a@[IPv6:fe80::1%lo]",
        ),
    ),
    "numeric domains": Case(
        {"mydestination": "relay.test", "resolve_numeric_domain": "yes"},
        ("a%b@127.0.0.1", "b!a@127.0.0.1", "a@b@127.0.0.1", "a%127.0.0.1@relay.test", "a%b@1.2.3.4"),
    ),
    "empty parts": Case(
        {"mydestination": "relay.test, home.test", "empty_address_recipient": "nobody"},
        ("@home.test", "@x.test", "a%", "a!", "%a", "a@b@", "a@@", "@", "@@", "a%b@", "a!b@", "a@b%c@"),
    ),
    "empty parts, null domains resolved": Case(
        {"mydestination": "home.test", "resolve_null_domain": "yes"}, ("a@", "@", "a%b@", "a@b@", "a@@", "a%")
    ),
    "empty parts, quotes kept": Case(
        {"mydestination": "home.test", "resolve_dequoted_address": "no"}, ("a@b@", "a@b@@", "a%b@", "a b%c@")
    ),
    "names in quotes": Case(
        {"mydestination": "relay.test, origin.test", "myorigin": "origin.test"},
        ("q u!c", "a,b!c", "c%[1.2.3.4]", "c!a..b", ".a!c"),
    ),
    "names in quotes, kept, without origin": Case(
        {"append_at_myorigin": "no", "resolve_dequoted_address": "no", "mydestination": ""},
        ("a b%c.test", "c.test!a b", "a"),
    ),
    "other letters": Case(
        {"mydestination": "relay.test"},
        ("a@stra\u00dfe.test", "a@STRA\u00dfE.test", "a@\u0392\u03a3.test", "a@J\u00f6.test"),
    ),
    "no transport by sender": Case(
        {"sender_dependent_default_transport_maps": "inline:{{ {{@a.test=:hop}} }}", "mydestination": ""},
        ("u@e.test",),
        ("u@a.test", "u@b.test"),
    ),
    "alias domains have no other route": Case(
        {
            "transport_maps": "inline:{{ {{*=smtp:[hub]}}, {{u@va.test=slow:x}}, {{+u2@va.test=slow:}} }}",
            "virtual_alias_domains": "va.test",
            "mydestination": "",
        },
        ("u@va.test", "u2@va.test", "nobody@va.test", "u@e.test"),
    ),
    "letters that other letters stand for": Case(
        {"mydestination": ""}, ("a@stra\u00dfe.test", "a@\u03a3\u03c2.test", "a@\u017f.test")
    ),
    "error without a reason": Case(
        {
            "local_transport": "error",
            "virtual_transport": "error:",
            "relay_transport": "retry:",
            "default_transport": "error",
            "mydestination": "loc.test",
            "virtual_mailbox_domains": "vmb.test",
            "relay_domains": "rel.test",
            "transport_maps": (
                "inline:{{ {{e1.test=:}}, {{e2.test=error:}}, {{e3.test=:hop}}, {{e4.test=error}} }}"
            ),
        },
        tuple(f"u@{name}.test" for name in ("Loc", "Vmb", "Rel", "Def", "e1", "e2", "e3", "e4")),
    ),
    "error without a reason, by sender": Case(
        {"sender_dependent_default_transport_maps": "static:error", "mydestination": ""},
        ("u@E.test",),
        ("", "s@a.test"),
    ),
    "error without a reason, with a relay host": Case(
        {"default_transport": "error", "relayhost": "[hub]", "mydestination": ""}, ("u@e.test",)
    ),
    "final dots": Case(
        {"append_dot_mydomain": "yes", "mydomain": "my.test", "mydestination": "home.test"},
        (
            *("a@h", "a@h.", "a%h@home.test", "a%h.@home.test", "h.!a@home.test", "h!a@home.test"),
            *("a@h.@home.test", "a@h@home.test", "a%h", "a%h."),
        ),
    ),
    "quoted, without a domain": Case(
        {"append_at_myorigin": "no", "mydestination": "home.test"},
        ("a b%vmb.test", "a%vmb.test", "vmb.test!a b", "vmb.test!a", "a,b%home.test"),
    ),
}
