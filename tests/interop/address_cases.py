"""
Configurations and messages for the comparison of what Postfix and we do to addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

ENTRIES = """\
a@x.test b@y.test
noext@x.test ne@y.test
user mapped
user2+e special@y.test
@dom.test @other.test
@catch.test one@y.test
@self.test @self.test
multi@x.test m1@y.test, m2@y.test
blanks@x.test m1@y.test m2@y.test
loop1@x.test loop2@x.test
loop2@x.test loop1@x.test
same@x.test same@x.test
up@x.test UP@x.test
chain1@x.test chain2@x.test
chain2@x.test chain3@x.test
plain@x.test plain
"ab cd"@x.test quoted@y.test
toquoted@x.test "a b"@y.test
escaped@x.test a\\ b@y.test
named@x.test Some Name <n@y.test>
angle@x.test <an@y.test>
group@x.test g: g1@y.test, g2@y.test;
bang@x.test site!us
percent@x.test u%d@home.test
dot@x.test u@d.test.
literal@x.test u@[127.0.0.1]
at@x.test @only.test
comment@x.test (no address)
comma@x.test ,
x+y@x.test full@y.test
pipe@x.test "|cmd"
file@x.test /etc/passwd
jö@x.test jörg@exämple.test
two@x.test t1@x.test, t2@x.test
t1@x.test a1@y.test, a2@y.test
t2@x.test a3@y.test, a4@y.test
dup@x.test d@y.test, D@y.test, d@Y.test
diamond@x.test two@x.test, t1@x.test
selfplus@x.test selfplus@x.test, other@y.test
plusself@x.test other@y.test, plusself@x.test
crossa@x.test crossb@x.test, crossa@x.test
crossb@x.test crossa@x.test, crossb@x.test
h1@x.test h2@x.test, h3@x.test
h2@x.test h2@x.test, h4@x.test
h3@x.test h2@x.test
grow@x.test grow+e@x.test
later@x.test fixed@y.test, @third.test
@first.test @third.test, fixed@y.test
ext@x.test ext@y.test
ext+a@x.test exta@y.test
dash-x@x.test dd@y.test
c0@x.test c1@x.test
c1@x.test c2@x.test
c2@x.test c3@x.test
c3@x.test c4@x.test
branch@x.test k@y.test, c0@x.test
branch2@x.test k@y.test, c2@x.test
four@x.test d@y.test, d@y.test, d@y.test, d@y.test
long29@x.test abcdefghijklmnopqrstuvw@y.test
long31@x.test abcdefghijklmnopqrstuvwx@y.test
quoted30@x.test "abcdefghij lmnopqrstuvw"@y.test
swap1@x.test swap2@x.test
swap2@x.test swap1@x.test, end@y.test
"""
"""The table file: C{/table} below."""

BCC = """\
s@ex.test sb@z.test
@archive.test @kept.test
many@ex.test m1@z.test,m2@z.test
masked@ex.test mb@z.test
ext@ex.test exb@z.test
r@dest.test rb@z.test
two@x.test rbtwo@z.test
a1@y.test never@z.test
u2 ub@z.test
bare@x.test barebcc
odd@x.test (c)
rr@dest.test two@x.test
rb@z.test again@z.test
"""
"""The table file C{/bcc}."""

_TABLE = "texthash:FOLDER/table"
_BASE = {"recipient_delimiter": "+", "mydestination": "home.test", "myorigin": "origin.test"}
_ALL = "envelope_sender, envelope_recipient, header_sender, header_recipient"

CONFIGURATIONS: Mapping[str, Mapping[str, str]] = {
    "none": _BASE,
    "canonical": {**_BASE, "canonical_maps": _TABLE},
    "virtual": {**_BASE, "virtual_alias_maps": _TABLE},
    "keepless": {
        **_BASE,
        "recipient_delimiter": "+-",
        "propagate_unmatched_extensions": "",
        "canonical_maps": _TABLE,
        "virtual_alias_maps": _TABLE,
    },
    "specific": {
        **_BASE,
        "sender_canonical_maps": "inline:{ {a@x.test = sa@y.test}, {c@x.test = a@x.test} }",
        "recipient_canonical_maps": "inline:{ {a@x.test = ra@y.test}, {c@x.test = a@x.test} }",
        "canonical_maps": "inline:{{sa@y.test=csa@y.test}, {ra@y.test=cra@y.test}, {q@x.test=cq@x.test}}",
    },
    "classes": {
        **_BASE,
        "canonical_maps": "inline:{ {a@x.test = ca@y.test} }",
        "canonical_classes": "header_sender, envelope_recipient",
        "sender_canonical_maps": "inline:{ {b@x.test = sb@y.test} }",
        "sender_canonical_classes": "envelope_sender",
        "recipient_canonical_maps": "inline:{ {b@x.test = rb@y.test} }",
        "recipient_canonical_classes": "header_recipient",
    },
    "masquerade": {
        **_BASE,
        "masquerade_domains": "!no.ex.test foo.ex.test ex.test Up.Test",
        "masquerade_exceptions": "root,Adm",
    },
    "maskall": {
        **_BASE,
        "masquerade_domains": "ex.test",
        "masquerade_classes": _ALL,
        "canonical_maps": "inline:{ {c@a.ex.test = d@b.ex.test}, {m@ex.test = never@y.test} }",
        "sender_bcc_maps": "texthash:FOLDER/bcc",
        "always_bcc": "watch@deep.ex.test",
    },
    "bcc": {
        **_BASE,
        "virtual_alias_maps": _TABLE,
        "sender_bcc_maps": "texthash:FOLDER/bcc",
        "recipient_bcc_maps": "texthash:FOLDER/bcc",
        "canonical_maps": "inline:{ {raw@ex.test = many@ex.test}, {cup@z.test = r@dest.test} }",
    },
    "always": {**_BASE, "virtual_alias_maps": _TABLE, "canonical_maps": _TABLE, "always_bcc": "two@x.test"},
    "alwaysbare": {**_BASE, "always_bcc": "r"},
    "unoriginal": {
        **_BASE,
        "enable_original_recipient": "no",
        "virtual_alias_maps": _TABLE,
        "always_bcc": "d@y.test",
    },
    "forgetful": {**_BASE, "duplicate_filter_limit": "1"},
    "recursion3": {**_BASE, "virtual_alias_maps": _TABLE, "virtual_alias_recursion_limit": "3"},
    "recursion1": {**_BASE, "virtual_alias_maps": _TABLE, "virtual_alias_recursion_limit": "1"},
    "expansion3": {**_BASE, "virtual_alias_maps": _TABLE, "virtual_alias_expansion_limit": "3"},
    "length30": {**_BASE, "virtual_alias_maps": _TABLE, "virtual_alias_address_length_limit": "30"},
    "owner": {"recipient_delimiter": "-", "canonical_maps": _TABLE, "owner_request_special": "no"},
    "ownerspecial": {"recipient_delimiter": "-", "canonical_maps": _TABLE},
    "dotted": {**_BASE, "append_dot_mydomain": "yes", "mydomain": "my.test"},
    "parent": {**_BASE, "myorigin": "h", "append_dot_mydomain": "yes", "mydomain": "my.test"},
    "originless": {
        **_BASE,
        "append_at_myorigin": "no",
        "canonical_maps": "inline:{ {bare = mapped}, {bare2 = m@y.test}, {@x.test = result} }",
    },
    "unswapped": {**_BASE, "swap_bangpath": "no", "allow_percent_hack": "no"},
    "null": {
        **_BASE,
        "canonical_maps": "inline:{ {@origin.test = catch@x.test}, {MAILER-DAEMON = md@x.test} }",
    },
    "nobody": {
        **_BASE,
        "empty_address_recipient": "nobody",
        "canonical_maps": "inline:{ {nobody = n@x.test} }",
    },
    "patterns": {
        **_BASE,
        "virtual_alias_maps": "regexp:FOLDER/patterns inline:{ {k@re2.test = j@y.test} }",
        "canonical_maps": "regexp:FOLDER/patterns2",
    },
    "unmapped": {
        **_BASE,
        "canonical_maps": _TABLE,
        "virtual_alias_maps": _TABLE,
        "masquerade_domains": "ex.test",
        "always_bcc": "two@x.test",
        "receive_override_options": "no_address_mappings",
    },
    "remote": {
        **_BASE,
        "local_header_rewrite_clients": "",
        "canonical_maps": _TABLE,
        "masquerade_domains": "ex.test",
    },
    "remotedomain": {
        **_BASE,
        "local_header_rewrite_clients": "",
        "remote_header_rewrite_domain": "domain.invalid",
        "append_dot_mydomain": "yes",
        "mydomain": "my.test",
        "canonical_maps": "inline:{{a@x.test=b}, {foo@domain.invalid=found}, {bar@origin.test=never@y.test}}",
        "masquerade_domains": "ex.test",
    },
    "broken": {**_BASE, "virtual_alias_maps": "fail:x"},
    "tokens": {**_BASE, "canonical_maps": _TABLE, "header_address_token_limit": "12"},
}

PATTERNS = """\
/^(.*)@re.test$/ $1@done.test
/^z/ zzz
/^k@/ kk@kk.test
"""

PATTERNS2 = "/^can[+](.*)@(.*)$/ $2@$1\n"


@frozen
class AddressCase:
    """
    A message.

    @ivar configuration: of L{CONFIGURATIONS}.
    @ivar sender: the envelope sender.
    @ivar recipients: the envelope recipients.
    @ivar headers: header lines.
    """

    configuration: str
    sender: bytes = b"s@some.test"
    recipients: Sequence[bytes] = (b"r@some.test",)
    headers: Sequence[bytes] = ()


def _one(configuration: str, *addresses: bytes) -> list[AddressCase]:
    """The same address everywhere."""
    return [
        AddressCase(configuration, one, (one,), (b"To: " + one, b"From: N <" + one + b">"))
        for one in addresses
    ]


def _recipients(configuration: str, *addresses: bytes) -> list[AddressCase]:
    return [AddressCase(configuration, recipients=(one,)) for one in addresses]


def _headers(configuration: str, *values: bytes) -> list[AddressCase]:
    return [AddressCase(configuration, headers=(b"To: " + value,)) for value in values]


def _x(names: bytes) -> list[bytes]:
    return [name + b"@x.test" for name in names.split()]


COMPLETION = [
    *_one(
        "none",
        *b"joe a!b a%b a!b!c a%b%c a!b%c u@h. u@[1.2.3.4] MAILER-DAEMON a!b@c.test a%b@c.test".split(),
    ),
    *_one("dotted", *b"u u@h u@h. u@[1.2.3.4] u@.h b!u b!u@h a!b!c a%b%c u@h.k a@b@c".split()),
    *_recipients("dotted", b"u@", b"u@h..", b"@h", b"", b"@h:u@k"),
    *_one("originless", *b"bare bare2 q@x.test other user@home.test a!b".split()),
    *_one("unswapped", *b"a!b a%b a!b@c a%b!c".split()),
    # What needs quotes names no site.
    *_recipients("none", b"q u!c", b"q u%c", b"a,b!c", b"c%[1.2.3.4]", b"[x]!c", b"c!a..b", b".a!c", b"a%b."),
    *_recipients("none", b'"q"!c', b"a\\!b"),
    *_recipients("originless", b"q u!c", b"a,b%c", b"c!d"),
    *_one("none", *b"a% a! !a %a % !".split()),
    *_recipients("none", b"a@b@", b"a@@", b"@@", b"a@b@@"),
    *_one("parent", *b"a a!b a%b a@k a@k.".split(), b""),
    *_recipients("parent", b"q u!c"),
    AddressCase("null", b"", (b"",), (b"From: <>", b"To: <>", b"Cc: foo")),
    AddressCase("null", b"mailer-daemon", (b"mailer-daemon",), (b"From: mailer-daemon", b"Cc: ")),
    AddressCase("null", b"MAILER-DAEMON@origin.test", (b"MAILER-DAEMON@origin.test",)),
    AddressCase("null", b"mailer-daemon@home.test"),
    AddressCase("nobody", b"", (b"",)),
]

CANONICAL = [
    *_one(
        "canonical",
        *(b"user user@origin.test user@home.test user@[127.0.0.1] user@else.test user+q@home.test").split(),
        *b"user2+e@home.test user2+f@home.test z@dom.test z+e@dom.test z@catch.test z+e@catch.test".split(),
        *_x(b"a a+e A multi blanks multi+e loop1 same up chain1 chain1+e plain plain+e toquoted escaped"),
        *_x(
            b"toquoted+e named named+e angle group bang percent dot literal at x+y x+z pipe file ext+a ext+b"
        ),
        *_x(b"ext+a+b ext+ +e grow c0 comment comma"),
        b"A@X.TEST",
        b"z@self.test",
    ),
    *_recipients("canonical", b"ab cd@x.test", b"ab cd+e@x.test", "jö@x.test".encode(), b"two@@x.test"),
    *_one("keepless", *b"a+e@x.test a-e+f@x.test z+e@dom.test ext-b+c@x.test".split()),
    *_one("owner", *b"dash-x@x.test ext-b-c@x.test owner-ext@x.test ext-request@x.test".split()),
    *_one("ownerspecial", *b"dash-x@x.test ext-b-c@x.test owner-ext@x.test ext-request@x.test".split()),
    *(
        AddressCase("specific", address, (address,), (name + b": " + address,))
        for address in (b"a@x.test", b"c@x.test", b"q@x.test")
        for name in (
            b"To Cc From Sender Reply-To Errors-To Return-Receipt-To Disposition-Notification-To"
            b" Apparently-To Mail-Followup-To Resent-To Resent-Cc Resent-From Resent-Sender Resent-Reply-To"
            b" X-To Mail-Reply-To List-Post"
        ).split()
    ),
    *_one("classes", b"a@x.test", b"b@x.test"),
    *_one("patterns", b"can+foo@bar", b"Q@RE.test"),
    *_one("unmapped", b"a@x.test", b"user", b"u@host.ex.test"),
    *_headers(
        "canonical",
        b"G: a@x.test, b@x.test;, c@x.test",
        b"N N <a@x.test> (comm)",
        b"(c) a@x.test (d)",
        b"a@x.test,\n\tb@x.test,   c@x.test",
        b'"user"@home.test',
        b"=?utf-8?q?J=C3=B6?= <a@x.test>",
        b"J\xc3\xb6 <a@x.test>",
        b"<@h1,@h2:a@x.test>",
        b"a @ x . test",
        b"A@X.TEST (x)",
        b"  a@x.test  ",
        b"b@x.test  ,  c@x.test",
        b"b@x.test  ,  a@x.test",
        b"undisclosed-recipients:;",
        b"a@x.test b@x.test",
        b'"a@x.test" <b@x.test>',
        b'"a@x.test" <a@x.test>',
        b"a@x.test,,b@x.test,",
        b"G: a@x.test;",
        b"G:a@x.test,H:a@x.test;",
        b"toquoted@x.test, multi@x.test, a+e@x.test",
        b", ".join([b"a@x.test"] * 40),
        b'"ab cd"@x.test',
    ),
    *_headers(
        "tokens",
        b"a@x.test",
        b"a@x.test, a@x.test, a@x.test",
        b"N N <a@x.test>, a@x.test, c@x.test",
        b"b@x.test, c@x.test,  d@x.test, e@x.test",
    ),
]

REMOTE = [
    AddressCase(configuration, b"a@x.test", (b"a@x.test",), headers)
    for configuration in ("remote", "remotedomain")
    for headers in (
        (b"From: foo", b"To: u@host, b!c, d%e, x@y., <@a:q@r>", b"Cc: a@x.test, z@q.ex.test"),
        (b"From: a@x.test", b'To: "q"@x , foo  , bar@b.b', b"Reply-To: bar"),
        (b"Sender: u@[127.0.0.1]", b"Resent-To:  user@home.test"),
    )
]
"""These come by SMTP, since all mail by QMQP counts as local."""

MASQUERADE = [
    *_one(
        "masquerade",
        *b"u@ex.test u@a.ex.test u@A.B.EX.test u@a.foo.ex.test u@foo.ex.test u@no.ex.test".split(),
        *b"u@a.no.ex.test u@xex.test root@a.ex.test ROOT@a.ex.test adm@a.ex.test root+x@a.ex.test".split(),
        *b"u@a.up.test U@A.UP.TEST u@a.ex.test. u%q@a.ex.test".split(),
    ),
    *_one("maskall", *b"c@a.ex.test m@a.ex.test masked@x.ex.test q@q.test".split()),
]

VIRTUAL = [
    *_recipients(
        "virtual",
        *(b"user user@origin.test user@home.test user@[127.0.0.1] user@else.test user+q@home.test").split(),
        *b"user2+e@home.test user2+f@home.test z@dom.test z+e@dom.test z@catch.test z+e@catch.test".split(),
        *_x(b"a a+e A multi blanks multi+e loop1 same up chain1 chain1+e plain plain+e toquoted escaped"),
        *_x(
            b"toquoted+e named named+e angle group bang percent dot literal at x+y x+z pipe file ext+a ext+b"
        ),
        *_x(b"ext+a+b ext+ +e grow comment comma two dup diamond selfplus plusself crossa h1 later swap1"),
        *_x(b"branch four"),
        b"z@self.test",
        b"ab cd@x.test",
        "jö@x.test".encode(),
        b"two@@x.test",
        b"",
    ),
    *_recipients("recursion3", *_x(b"c0 c1 c2 c3 branch branch2 loop1 selfplus")),
    *_recipients("recursion1", *_x(b"same a chain1 two none")),
    *_recipients("expansion3", *_x(b"two multi group four dup selfplus crossa h1 swap1 diamond")),
    AddressCase("expansion3", recipients=_x(b"multi group dup a t1 t2")),
    *_recipients("length30", *_x(b"long29 long31 quoted30 grow"), b"y" * 40 + b"@z.test"),
    *_recipients("patterns", b"q@re.test", b"zap@re2.test", b"k@re2.test", b"j+k@re2.test"),
    *_recipients("broken", b"r@dest.test"),
    *_recipients("keepless", b"multi+e@x.test", b"two-e@x.test"),
]

COPIES = [
    *(
        AddressCase("bcc", sender, (b"n@n.test",))
        for sender in (
            b"s@ex.test",
            b"S@EX.test",
            b"many@ex.test",
            b"raw@ex.test",
            b"",
            b"ext+e@ex.test",
            b"mailer-daemon",
            b"q@archive.test",
        )
    ),
    *(
        AddressCase("bcc", b"n@n.test", recipients)
        for recipients in (
            (b"r@dest.test",),
            (b"two@x.test",),
            (b"a1@y.test",),
            (b"ext+e@x.test",),
            (b"u2@home.test",),
            (b"u2",),
            (b"rr@dest.test",),
            (b"bare@x.test",),
            (b"odd@x.test",),
            (b"cup@z.test",),
            (b"r@dest.test", b"rb@z.test", b"r@dest.test"),
            (b"rb@z.test", b"r@dest.test"),
        )
    ),
    AddressCase("bcc", b"s@ex.test", (b"r@dest.test", b"sb@z.test", b"r@dest.test")),
    AddressCase("always"),
    AddressCase("always", b"", (b"two@x.test", b"a1@y.test")),
    AddressCase("alwaysbare", recipients=(b"r", b"r@origin.test", b"q")),
    *(
        AddressCase(configuration, recipients=recipients)
        for configuration in ("virtual", "unoriginal")
        for recipients in (
            (b"d@y.test", b"D@y.test", b"d@Y.test", b"dup@x.test", b"d@y.test"),
            (b"d@home.test", b"d", b"D@home.test", b"d@origin.test"),
            (b"two@x.test", b"two@x.test", b"TWO@x.test", b"t1@x.test", b"a1@y.test"),
        )
    ),
    AddressCase("forgetful", recipients=(b"d@y.test", b"e@y.test", b"e@y.test", b"d@y.test")),
]

KNOWN = [
    *_recipients("virtual", b"z@first.test"),
    *_recipients("none", b'a@"x".test', b"a@x\\.test", b"a@[192.0.2.1", b"@[IPv6:::1]:a@b.test"),
    *_headers("none", b"@h:u@k", b"a@x.test; foo", b"<foo", b"foo>"),
]
"""Where we mean to differ; see docs/differences."""
