"""
Scenarios of intake, written from Postfix's documentation: header_checks(5), cleanup(8), canonical(5),
virtual(5), trivial-rewrite(8), ADDRESS_REWRITING_README, BUILTIN_FILTER_README, VERP_README.
"""

from __future__ import annotations

from tests.cleanup.cases import COMPLETE, Case
from tests.interop.intake_mime_cases import MIME_SCENARIOS
from tests.interop.intake_peers import Scenario

PLAIN = b"body\n"


def mail(name: str, *headers: bytes, body: bytes = PLAIN, **more: object) -> Case:
    """
    @return: a message that lacks nothing, with these headers, too.
    """
    content = COMPLETE + b"".join(header + b"\n" for header in headers) + b"\n" + body
    return Case(name, content, **more)  # type: ignore[arg-type]


def bare(name: str, *headers: bytes, body: bytes = PLAIN, **more: object) -> Case:
    """
    @return: a message with these headers and no others.
    """
    return Case(name, b"".join(header + b"\n" for header in headers) + b"\n" + body, **more)  # type: ignore[arg-type]


CHECKS = Scenario(
    "checks",
    {"header_checks": "pcre:FOLDER/header_checks", "body_checks": "regexp:FOLDER/body_checks"},
    [
        mail("no match", b"Subject: nothing"),
        mail("REJECT", b"X-Do: reject"),
        mail("REJECT with text", b"X-Do: reject-text"),
        mail("REJECT with a code", b"X-Do: reject-code"),
        mail("REJECT for now", b"X-Do: reject-later"),
        mail("REJECT of part of the text", b"X-Do: reject-echo one two"),
        mail("DISCARD", b"X-Do: discard"),
        mail("DISCARD with text", b"X-Do: discard-text"),
        mail("DISCARD, then REJECT", b"X-Do: discard", b"X-Do: reject"),
        mail("REJECT, then DISCARD", b"X-Do: reject", b"X-Do: discard"),
        mail("HOLD", b"X-Do: hold"),
        mail("HOLD twice", b"X-Do: hold", b"X-Do: hold-text"),
        mail("HOLD, then REJECT", b"X-Do: hold", b"X-Do: reject"),
        mail("HOLD, then DISCARD", b"X-Do: hold", b"X-Do: discard"),
        mail("REDIRECT", b"X-Do: redirect one@redirect.test"),
        mail("REDIRECT twice", b"X-Do: redirect one@redirect.test", b"X-Do: redirect two@redirect.test"),
        mail(
            "REDIRECT of several",
            b"X-Do: redirect one@redirect.test",
            recipients=(b"a@dest.test", b"b@dest.test", b"c@other.test"),
        ),
        mail("REDIRECT to no address", b"X-Do: redirect nobody"),
        mail("FILTER", b"X-Do: filter"),
        mail("FILTER twice", b"X-Do: filter", b"X-Do: filter-back"),
        mail("FILTER without destination", b"X-Do: filter-transport"),
        mail("FILTER malformed", b"X-Do: filter-bad"),
        mail("FILTER and REDIRECT", b"X-Do: filter", b"X-Do: redirect one@redirect.test"),
        mail("PREPEND", b"X-Do: prepend X-New: new"),
        mail("PREPEND twice", b"X-Do: prepend X-New: new", b"X-Do: prepend X-New: newer"),
        mail("PREPEND of no header", b"X-Do: prepend just words"),
        mail("PREPEND of an address", b"X-Do: prepend To: joe, bob"),
        mail("PREPEND nothing", b"X-Do: prepend-nothing"),
        bare("PREPEND of a missing header", b"X-Do: prepend Date: now"),
        mail("REPLACE", b"X-Do: replace X-New: new"),
        mail("REPLACE by an address header", b"X-Do: replace To: joe, bob"),
        bare("REPLACE by a missing header", b"X-Do: replace Message-ID: <new@x>"),
        mail("REPLACE by no header", b"X-Do: replace just words"),
        mail("REPLACE by a dropped header", b"X-Do: replace Bcc: somebody"),
        mail("REPLACE by nothing", b"X-Do: replace-nothing"),
        mail("REPLACE by a Received header", b"X-Do: replace Received: from here"),
        mail("IGNORE", b"X-Do: ignore"),
        bare("IGNORE of a needed header", b"Date: ignore me", b"Subject: x"),
        mail("STRIP", b"X-Do: strip"),
        mail("STRIP with text", b"X-Do: strip-text"),
        mail("WARN", b"X-Do: warn"),
        mail("WARN with text", b"X-Do: warn-text"),
        mail("WARN and HOLD", b"X-Do: warn", b"X-Do: hold"),
        mail("INFO", b"X-Do: info"),
        mail("INFO with text", b"X-Do: info-text"),
        mail("PASS, then REJECT", b"X-Do: pass", b"X-Do: reject", body=b"reject this\n"),
        mail("DUNNO", b"X-Do: dunno"),
        mail("OK", b"X-Do: ok"),
        mail("BCC", b"X-Do: bcc copy@bcc.test"),
        mail("BCC twice", b"X-Do: bcc copy@bcc.test", b"X-Do: bcc copy@bcc.test"),
        mail("two BCCs", b"X-Do: bcc copy@bcc.test", b"X-Do: bcc second@bcc.test"),
        mail("BCC to the recipient", b"X-Do: bcc r@dest.test"),
        mail("BCC to no address", b"X-Do: bcc nobody"),
        mail("BCC and REDIRECT", b"X-Do: bcc copy@bcc.test", b"X-Do: redirect one@redirect.test"),
        mail("BCC and DISCARD", b"X-Do: bcc copy@bcc.test", b"X-Do: discard"),
        mail("an action that is none", b"X-Do: unknown"),
        mail("an action in lower case", b"X-Do: lower"),
        mail("DELAY", b"X-Do: delay"),
        mail("case does not matter", b"x-dO: REJECT"),
        mail("a folded header", b"X-Folded: one\n\ttwo\n three"),
        mail("a blank before the colon", b"X-Do : reject"),
        mail("a long header", b"X-Long: " + b"word " * 200 + b"end"),
        mail("a header with 8-bit bytes", "X-Do: warn Grüße".encode()),
        mail("a header with control characters", b"X-Do: warn a\x07b\x7fc"),
        mail("a header with a NUL", b"X-Do: warn a\0 hidden"),
        mail("a dropped header is checked", b"Bcc: drop me"),
        mail("an address header as it came", b"To: joe,\n bob"),
        mail("headers added here are not checked", b"X-Do: ignore"),
        bare("nor in an empty message"),
        mail("our own Received header", b"X-Other: x", recipients=(b"tracked@dest.test",)),
        mail("a negated pattern", b"X-Not: no"),
        mail("if and endif", b"X-If: inner"),
        mail("if and endif, not met", b"X-If: other"),
        mail("body: no match", body=b"one\ntwo\n"),
        mail("body: REJECT", body=b"one\nreject this\n"),
        mail("body: REJECT at the end, no newline", body=b"one\nreject this"),
        mail("body: DISCARD", body=b"discard this\n"),
        mail("body: HOLD", body=b"hold this\nhold this\n"),
        mail("body: IGNORE", body=b"one\nignore this\ntwo\n"),
        mail("body: IGNORE the last line", body=b"one\nignore this"),
        mail("body: REPLACE", body=b"one\nreplace this\ntwo\n"),
        mail("body: REPLACE by nothing", body=b"one\nreplace-nothing\ntwo\n"),
        mail("body: PREPEND", body=b"one\nprepend this\ntwo\n"),
        mail("body: STRIP", body=b"one\nstrip this\ntwo\n"),
        mail("body: WARN, with control characters", body=b"warn a\x07b \xe9\n"),
        mail("body: WARN, long", body=b"warn " + b"x" * 300 + b"\n"),
        mail("body: REDIRECT", body=b"redirect this\n"),
        mail("body: FILTER", body=b"filter this\n"),
        mail("body: BCC", body=b"bcc this\n"),
        mail("body: an empty line never matches", body=b"\n\n"),
        mail("body: after HOLD in the header", b"X-Do: hold", body=b"reject this\n"),
    ],
    files={
        "header_checks": r"""
/^X-Do: reject$/                REJECT
/^X-Do: reject-text$/           REJECT not   here
/^X-Do: reject-code$/           REJECT 5.6.0 bad content
/^X-Do: reject-later$/          REJECT 4.7.0 come back
/^X-Do: reject-echo (\w+) (\w+)$/  REJECT you said $2 ${1}
/^X-Do: discard$/               DISCARD
/^X-Do: discard-text$/          DISCARD away with it
/^X-Do: hold$/                  HOLD
/^X-Do: hold-text$/             HOLD let us see
/^X-Do: redirect (.*)$/         REDIRECT $1
/^X-Do: filter$/                FILTER smtp:OTHER
/^X-Do: filter-back$/           FILTER smtp:SINK
/^X-Do: filter-transport$/      FILTER relay:
/^X-Do: filter-bad$/            FILTER nothing
/^X-Do: prepend (.*)$/          PREPEND $1
/^X-Do: prepend-nothing$/       PREPEND
/^X-Do: replace (.*)$/          REPLACE $1
/^X-Do: replace-nothing$/       REPLACE
/^X-Do: ignore/                 IGNORE
/^Date: ignore/                 IGNORE
/^X-Do: strip$/                 STRIP
/^X-Do: strip-text$/            STRIP not wanted
/^X-Do: warn-text$/             WARN look at this
/^X-Do: warn/                   WARN
/^X-Do: info$/                  INFO
/^X-Do: info-text$/             INFO good to know
/^X-Do: pass$/                  PASS
/^X-Do: dunno$/                 DUNNO
/^X-Do: ok$/                    OK
/^X-Do: (dunno|ok)/             REJECT
/^X-Do: bcc (.*)$/              BCC $1
/^X-Do: unknown$/               SING
/^X-Do: lower$/                 reject in lower case
/^X-Do: delay$/                 DELAY 1h
/^X-Folded: one\n\ttwo\n three/ PREPEND X-Seen: folded
/^X-Long: .*end$/               WARN
/^Bcc: drop/                    PREPEND X-Seen: bcc
/^To: joe,\n bob$/              PREPEND X-Seen: to
/^(Message-Id|From): .*STAMP/   REJECT checked a header of ours
/^Received: .*\n.* with QMQP id [0-9A-Za-z]+\n\tfor <tracked@dest.test>/  PREPEND X-Seen: received
if /^X-If:/
/inner/                         PREPEND X-Seen: if
/other/                         DUNNO
!/nobody/                       REJECT
endif
if /^X-Not:/
!/yes$/                         PREPEND X-Seen: not
endif
""",
        "body_checks": r"""
/^reject this/          REJECT body
/^discard this/         DISCARD body
/^hold this/            HOLD body
/^ignore this/          IGNORE
/^replace this/         REPLACE something else
/^replace-nothing/      REPLACE
/^prepend this/         PREPEND in front
/^strip this/           STRIP body
/^warn/                 WARN body
/^redirect this/        REDIRECT body@redirect.test
/^filter this/          FILTER smtp:OTHER
/^bcc this/             BCC body@bcc.test
/^$/                    REJECT empty
""",
    },
)

RECEIVED = Scenario(
    "own received",
    {"header_checks": "regexp:FOLDER/header_checks", "hopcount_limit": "3"},
    [
        mail("removed", b"Subject: x"),
        mail("replaced", b"Subject: x", recipients=(b"replace@dest.test",)),
        mail("two hops", b"Received: a", b"Received: b"),
        mail("three hops", b"Received: a", b"Received: b", b"Received: c"),
        mail("ignored hops count or not", b"Received: ignore", b"Received: ignore", b"Received: ignore"),
    ],
    files={
        "header_checks": r"""
/^Received: ignore/                                     IGNORE
/^Received: .*with QMQP id .*for <r@dest.test>/         IGNORE
/^Received: .*with QMQP id .*for <replace@dest.test>/   REPLACE Received: from somewhere; some day
"""
    },
)

SOFT = Scenario(
    "soft bounce",
    {"header_checks": "pcre:FOLDER/header_checks", "body_checks": "static:REJECT", "soft_bounce": "yes"},
    [
        mail("REJECT", b"X-Do: reject", body=b""),
        mail("a blank more", b"X-Do: reject ", body=b""),
        mail("body of one line", body=b"x\n"),
        mail("too many hops", *[b"Received: x"] * 50, body=b""),
    ],
    files={"header_checks": "/^X-Do: reject$/ REJECT no\n"},
)

CANONICAL = {
    "canonical_maps": "texthash:FOLDER/canonical",
    "sender_canonical_maps": "texthash:FOLDER/sender",
    "recipient_canonical_maps": "regexp:FOLDER/recipient",
    "recipient_delimiter": "+",
    "virtual_alias_maps": "texthash:FOLDER/virtual, pcre:FOLDER/virtual.pcre",
    "mydestination": "local.test",
    "local_transport": "smtp:SINK",
    "virtual_alias_domains": "",
}

MAPPING = Scenario(
    "mapping",
    CANONICAL,
    [
        mail("sender", sender=b"joe@a.test"),
        mail("sender in capitals", sender=b"JOE@A.TEST"),
        mail("sender with extension", sender=b"joe+ext@a.test"),
        mail("sender by domain", sender=b"anybody@moved.test"),
        mail("sender by user", sender=b"root@relay.test"),
        mail("sender, bare", sender=b"root"),
        mail("sender of another domain", sender=b"root@elsewhere.test"),
        mail("sender_canonical_maps comes first", sender=b"boss@a.test"),
        mail("sender to several", sender=b"double@a.test"),
        mail("null sender", sender=b""),
        mail("headers", b"To: joe@a.test, x@moved.test", b"Cc: root", b"Sender: boss@a.test"),
        mail(
            "headers with comments",
            b"To: Joe Doe <joe@a.test> (him), (nobody)",
            b"Reply-To: joe@a.test (Joe)",
        ),
        mail("headers with extension", b"To: joe+ext@a.test", b"Errors-To: joe+x@a.test"),
        mail("headers in a group", b"To: friends: joe@a.test, x@moved.test;, root"),
        mail("headers that are not addresses", b"Subject: joe@a.test", b"List-Post: <mailto:joe@a.test>"),
        mail("Resent headers", b"Resent-From: boss@a.test", b"Resent-To: joe@a.test"),
        mail("recipient header by pattern", b"To: user99@pattern.test", b"From: user99@pattern.test"),
        mail("recipient by pattern", recipients=(b"user7@pattern.test",)),
        mail("recipient by canonical", recipients=(b"joe@a.test",)),
        mail("recipient by canonical and then virtual", recipients=(b"chain@a.test",)),
        mail("alias", recipients=(b"one@v.test",)),
        mail("alias to several", recipients=(b"three@v.test",)),
        mail("alias to itself", recipients=(b"self@v.test",)),
        mail("alias to itself and others", recipients=(b"selfish@v.test",)),
        mail("alias in a loop", recipients=(b"loop1@v.test",)),
        mail("alias of an alias", recipients=(b"deep@v.test",)),
        mail("alias with extension", recipients=(b"one+ext@v.test",)),
        mail("alias to several with extension", recipients=(b"three+ext@v.test",)),
        mail("alias of an extension", recipients=(b"exact+ext@v.test",)),
        mail("alias by domain", recipients=(b"anybody@vdomain.test",)),
        mail("alias by domain to one", recipients=(b"anybody+x@vone.test",)),
        mail("alias by user, local domain", recipients=(b"info@local.test", b"info@relay.test")),
        mail("alias by user, elsewhere", recipients=(b"info@elsewhere.test",)),
        mail("alias by user with extension", recipients=(b"info+x@local.test",)),
        mail("alias by pattern", recipients=(b"list-7@v.test",)),
        mail("alias without domain in the result", recipients=(b"short@v.test",)),
        mail("alias with a quoted result", recipients=(b"quoted@v.test",)),
        mail("alias of a quoted address", recipients=(b"two words@v.test",)),
        mail("alias to a bare name that is an alias", recipients=(b"toinfo@v.test",)),
        mail("duplicates of aliases", recipients=(b"one@v.test", b"three@v.test", b"one@v.test")),
        mail("headers are no aliases", b"To: one@v.test", recipients=(b"one@v.test",)),
        bare("From made of the mapped sender", b"Subject: x", sender=b"joe@a.test"),
        mail("for shows who was named", recipients=(b"chain@a.test",)),
        mail("percent hack", recipients=(b"joe%a.test",)),
        mail("bang path", recipients=(b"a.test!joe",)),
        mail("source route", recipients=(b"@hop.test:joe@a.test",)),
    ],
    files={
        "canonical": """
joe@a.test              Joe.Doe@b.test
root                    admin@b.test
@moved.test             @new.test
chain@a.test            one@v.test
double@a.test           x@b.test, y@b.test
user                    other
boss@a.test             wrong@b.test
""",
        "sender": """
boss@a.test             chief@a.test
""",
        "recipient": r"""
/^user([0-9]+)@pattern\.test$/          number$1@matched.test
""",
        "virtual": """
one@v.test              target@dest.test
three@v.test            t1@dest.test, t2@dest.test t3@dest.test
self@v.test             self@v.test
selfish@v.test          selfish@v.test, t1@dest.test
loop1@v.test            loop2@v.test
loop2@v.test            loop1@v.test, t1@dest.test
deep@v.test             deeper@v.test
deeper@v.test           deepest@v.test, t1@dest.test
deepest@v.test          t2@dest.test, t1@dest.test
exact+ext@v.test        exact@dest.test
exact@v.test            inexact@dest.test
@vdomain.test           @dest.test
@vone.test              catchall@dest.test
info                    information@dest.test
short@v.test            shorty
quoted@v.test           "two words"@dest.test
"two words"@v.test      words@dest.test
toinfo@v.test           info
""",
        "virtual.pcre": r"""
/^list-(\d)@v\.test$/   member$1@dest.test, archive-$1@dest.test
""",
    },
)

CLASSES = Scenario(
    "classes",
    {
        "canonical_maps": "inline:{ {a@x.test = b@x.test}, {ext@x.test = exto@x.test} }",
        "canonical_classes": "envelope_sender, header_recipient",
        "sender_canonical_maps": "inline:{s@x.test=t@x.test}",
        "sender_canonical_classes": "header_sender",
        "recipient_canonical_maps": "inline:{r@x.test=q@x.test}",
        "recipient_canonical_classes": "envelope_recipient",
        "masquerade_domains": "!keep.masq.test masq.test $mydomain",
        "masquerade_exceptions": "root, Postmaster",
        "masquerade_classes": "envelope_sender, envelope_recipient, header_sender",
        "propagate_unmatched_extensions": "virtual",
        "recipient_delimiter": "+-",
        "virtual_alias_maps": "inline:{ {v@x.test = w@x.test}, {s@sub.masq.test = wrong@x.test} }",
        "mydomain": "dom.test",
        "append_dot_mydomain": "yes",
    },
    [
        mail(
            "canonical", b"To: a@x.test", b"Sender: a@x.test", sender=b"a@x.test", recipients=(b"a@x.test",)
        ),
        mail("sender", b"To: s@x.test", b"Sender: s@x.test", sender=b"s@x.test", recipients=(b"s@x.test",)),
        mail(
            "recipient", b"To: r@x.test", b"Sender: r@x.test", sender=b"r@x.test", recipients=(b"r@x.test",)
        ),
        mail("extension is not copied", b"To: ext+1@x.test", sender=b"ext+1@x.test"),
        mail("extension of an alias is", recipients=(b"v+1@x.test", b"v-2@x.test")),
        mail("masquerade", b"To: u@sub.masq.test", b"Sender: u@sub.masq.test", sender=b"u@sub.masq.test"),
        mail("masquerade a recipient, before aliases", recipients=(b"s@sub.masq.test",)),
        mail("masquerade excepted users", b"Sender: root@sub.masq.test", sender=b"postmaster@sub.masq.test"),
        mail("masquerade excepted domain", b"Sender: u@deep.keep.masq.test", sender=b"u@keep.masq.test"),
        mail("masquerade the domain itself", b"Sender: u@masq.test", sender=b"u@notmasq.test"),
        mail("masquerade in capitals", b"Sender: U@SUB.Masq.Test", sender=b"U@SUB.MASQ.test"),
        mail("masquerade mydomain", b"Sender: u@host", sender=b"u@host"),
        mail("masquerade a literal", b"Sender: u@[192.0.2.1]", sender=b"u@[192.0.2.1]"),
        bare("missing From", b"Subject: x", sender=b"u@sub.masq.test"),
        bare("missing From, canonical", b"Subject: x", sender=b"s@x.test"),
        mail("append_dot_mydomain", b"To: u@host, v, w@host.", recipients=(b"u@host",), sender=b"s@host"),
    ],
)

BCC = Scenario(
    "bcc",
    {
        "always_bcc": "archive@bcc.test",
        "sender_bcc_maps": "inline:{ {s@ex.test = sent@bcc.test}, {@bulk.test = bulk@bcc.test},"
        " {bare@ex.test = barebcc} }",
        "recipient_bcc_maps": "inline:{ {r@dest.test = got@bcc.test}, {@copy.test = copies@bcc.test},"
        " {target@dest.test = late@bcc.test} }",
        "virtual_alias_maps": "inline:{ {archive@bcc.test = real@bcc.test}, {v@x.test = target@dest.test},"
        " {got@bcc.test = got1@bcc.test} }",
        "recipient_delimiter": "+",
        "canonical_maps": "inline:{ {old@ex.test = s@ex.test}, {c@x.test = r@dest.test} }",
        "enable_original_recipient": "yes",
        "header_checks": "regexp:{ {/^X-Do: discard/ DISCARD}, {/^X-Do: redirect/ REDIRECT re@dir.test},"
        " {/^X-Do: hold/ HOLD}, {/^X-Do: bcc/ BCC r2@dest.test} }",
    },
    [
        mail("all three"),
        mail("sender by domain", sender=b"x@bulk.test"),
        mail("sender by canonical", sender=b"old@ex.test"),
        mail("null sender", sender=b""),
        mail("sender with extension", sender=b"s+x@ex.test"),
        mail("bare result", sender=b"bare@ex.test"),
        mail("several recipients", recipients=(b"a@copy.test", b"b@copy.test", b"r@dest.test")),
        mail("recipient with extension", recipients=(b"r+x@dest.test",)),
        mail("recipient by canonical", recipients=(b"c@x.test",)),
        mail("recipient by alias", recipients=(b"v@x.test",)),
        mail("recipient is the archive", recipients=(b"archive@bcc.test",)),
        mail("DISCARD", b"X-Do: discard"),
        mail("REDIRECT", b"X-Do: redirect"),
        mail("HOLD", b"X-Do: hold"),
        mail("BCC action", b"X-Do: bcc"),
        mail("VERP", sender=b"list-@ex.test-@[]", recipients=(b"r@dest.test", b"x@y.test")),
    ],
)

HEADERS = Scenario(
    "headers",
    {
        "message_drop_headers": "bcc, X-Drop, resent-bcc, Return-Path",
        "always_add_missing_headers": "yes",
        "undisclosed_recipients_header": "To: undisclosed-recipients:;",
        "message_strip_characters": r"\0\007\n",
        "message_reject_characters": r"\032",
        "header_from_format": "obsolete",
        "canonical_maps": "inline:{joe@a.test=doe@b.test}",
    },
    [
        bare("nothing"),
        bare("nothing, null sender", sender=b""),
        bare("no To", b"From: a@b.test", b"Subject: x"),
        bare("Cc only", b"Cc: a@b.test"),
        bare("Bcc only", b"Bcc: a@b.test"),
        bare("empty To", b"To: "),
        bare("Apparently-To", b"Apparently-To: a@b.test"),
        bare("Resent-To", b"Resent-To: a@b.test"),
        bare("Resent-From only", b"Resent-From: joe@a.test"),
        bare("Resent-Date only", b"Resent-Date: now"),
        bare("Resent-Message-Id only", b"Resent-Message-Id: <a@b>"),
        bare("Resent-Bcc only", b"Resent-Bcc: a@b.test"),
        bare("Resent-Reply-To only", b"Resent-Reply-To: a@b.test"),
        bare(
            "Resent-Sender and all others", b"Resent-Sender: joe@a.test", b"From: x@y", b"To: z@y", b"Date: d"
        ),
        mail("complete and resent", b"To: z@y.test", b"Resent-From: a@b.test", b"Resent-To: c@d.test"),
        mail("dropped", b"X-Drop: me", b"x-DROP : me\n too", b"X-Dropped: not", b"Content-Length: 4"),
        mail("Return-Path", b"Return-Path: <x@y>"),
        bare("Date twice", b"Date: a", b"Date: b", b"Message-Id: <1@x>", b"Message-ID: <2@x>"),
        bare("Message-Id empty", b"Message-Id:"),
        bare("Message-Id strange", b"Message-Id: without brackets"),
        bare("From empty", b"From: "),
        bare("From twice", b"From: a@b.test", b"From: c@d.test"),
        mail("characters stripped", b"Subject: a\x07b\0c", body=b"x\x07y\0z\n\x07\n"),
        mail("characters refused in a header", b"Subject: a\x1ab"),
        mail("characters refused in the body", body=b"a\x1ab\n"),
        mail("characters refused, later", body=b"a\n" * 5000 + b"b\x1a\n"),
        mail("From with a quoted name", b'Sender: joe@a.test ("x")'),
        bare("no header at all, but a body", body=b"no header here\n"),
    ],
)

REWRITE = Scenario(
    "rewriting off",
    {
        "append_at_myorigin": "yes",
        "myorigin": "origin.test",
        "append_dot_mydomain": "no",
        "swap_bangpath": "no",
        "allow_percent_hack": "no",
        "empty_address_recipient": "nobody",
        "local_header_rewrite_clients": "static:all",
        "remote_header_rewrite_domain": "remote.test",
        "allow_min_user": "yes",
    },
    [
        mail("bang path", b"To: a!b", recipients=(b"a!b", b"a!b@c.test")),
        mail("percent", b"To: a%b.test", recipients=(b"a%b.test", b"a%b@c.test")),
        mail("bare", b"To: a, b@c", b"Cc: <d>", recipients=(b"a",), sender=b"b"),
        mail("null recipient", recipients=(b"",)),
        mail("minus", recipients=(b"-a@b.test",), sender=b"-s@x.test"),
        mail("source route", b"To: <@a.test,@b.test:c@d.test>", recipients=(b"@a.test:c@d.test",)),
        mail(
            "quoted",
            b'To: "a b"@c.test, "ab"@c.test, a.b.@c.test',
            recipients=(b"a b@c.test", b"a..b@c.test"),
        ),
        mail("literal", b"To: a@[192.0.2.1]", recipients=(b"a@[192.0.2.1]",)),
        mail("dots at the end", b"To: a@b.test., c@d..", recipients=(b"a@b.test.",)),
        mail("at at the end", b"To: a@", recipients=(b"a@",)),
    ],
)

LIMITS = Scenario(
    "limits",
    {
        "virtual_alias_maps": "pcre:FOLDER/virtual",
        "virtual_alias_expansion_limit": "4",
        "virtual_alias_recursion_limit": "3",
        "virtual_alias_address_length_limit": "60",
        "duplicate_filter_limit": "3",
        "hopcount_limit": "4",
        "message_size_limit": "20000",
        "header_size_limit": "1000",
        "header_address_token_limit": "12",
        "line_length_limit": "512",
        "header_checks": "regexp:{ {/^X-Long: .*end/ REJECT saw the end}, {/^X-Name[0-9]*:/ WARN} }",
        "body_checks": "pcre:FOLDER/body",
        "body_checks_size_limit": "3000",
    },
    [
        mail("four aliases", recipients=(b"four@v.test",)),
        mail("five aliases", recipients=(b"five@v.test",)),
        mail("recursion within", recipients=(b"r2@v.test",)),
        mail("recursion at the limit", recipients=(b"r3@v.test",)),
        mail("recursion beyond", recipients=(b"r4@v.test",)),
        mail("endless growth", recipients=(b"grow@v.test",)),
        mail("a good and a bad recipient", recipients=(b"ok@dest.test", b"five@v.test")),
        mail("duplicates beyond the filter", recipients=tuple(b"d%d@x.test" % (n % 5) for n in range(10))),
        mail("three hops", b"Received: a", b"Received: b", b"Received: c"),
        mail("two hops", b"Received: a", b"Received: b"),
        mail("hops in the body do not count", body=b"Received: a\n" * 9),
        mail("too large by what is around it", body=b"0123456789abcde\n" * 1243 + b"x" * 60 + b"\n"),
        mail(
            "too large by recipients",
            body=b"x" * 100,
            recipients=tuple(b"r%060d@dest.test" % n for n in range(400)),
        ),
        mail("a header over the limit", b"X-Long: " + b"w" * 1400 + b" end"),
        mail("a folded header over the limit", b"X-Long:" + b" word word\n" * 140 + b" end"),
        mail("a folded header below the limit", b"X-Long:" + b" word\n" * 120 + b" end"),
        mail("many address tokens", b"To: " + b", ".join(b"u%d@x.test" % n for n in range(40))),
        mail("many bare address tokens", b"To: " + b", ".join(b"u%d" % n for n in range(20))),
        mail("a name over line_length_limit", b"X" * 600 + b": y"),
        mail("a long line in the body", body=b"a" * 700 + b"first\n" + b"b" * 2000 + b"second\n"),
        mail("a piece of a long line", body=b"c" * 512 + b"piece" + b"d" * 600 + b"\n"),
        mail("across two pieces", body=b"c" * 510 + b"piece" + b"d" * 600 + b"\n"),
        mail("a piece is replaced", body=b"c" * 512 + b"swap" + b"d" * 600 + b"\nnext\n"),
        mail("within body_checks_size_limit", body=b"0123456789\n" * 200 + b"late\n"),
        mail("beyond body_checks_size_limit", body=b"0123456789\n" * 300 + b"late\n"),
        mail("at body_checks_size_limit", body=b"0123456789\n" * 272 + b"12345\nlate\n"),
    ],
    files={
        "virtual": r"""
/^four@v\.test$/        a@dest.test, b@dest.test, c@dest.test, d@dest.test
/^five@v\.test$/        a@dest.test, b@dest.test, c@dest.test, d@dest.test, e@dest.test
/^r4@v\.test$/          r3@v.test
/^r3@v\.test$/          r2@v.test
/^r2@v\.test$/          r1@v.test
/^r1@v\.test$/          end@dest.test
/^(grow.*)@v\.test$/    ${1}grow@v.test
""",
        "body": r"""
/^late/                 REJECT late
/^piece/                REJECT piece
/^swap/                 REPLACE swapped
/first$/                WARN first
/second$/               WARN second
""",
    },
)

OVERRIDES = Scenario(
    "overrides",
    {
        "header_checks": "static:REJECT",
        "body_checks": "static:REJECT",
        "canonical_maps": "inline:{s@ex.test=mapped@x.test}",
        "virtual_alias_maps": "inline:{r@dest.test=mapped@x.test}",
        "masquerade_domains": "ex.test",
        "always_bcc": "bcc@x.test",
        "content_filter": "smtp:SINK",
        "strict_8bitmime": "yes",
        "message_strip_characters": r"\007",
        "message_reject_characters": r"\010",
    },
    [
        mail("nothing is checked or mapped", b"To: s@ex.test"),
        mail("bare addresses are made complete", b"To: x", sender=b"s", recipients=(b"r",)),
        mail("masquerade", sender=b"s@sub.ex.test"),
        bare("missing headers are added"),
        mail("hops count", *[b"Received: x"] * 50),
        mail("mime", b"Content-Type: text/plain", body=b"x\n"),
        mail("characters", b"Subject: a\x07b\x08", body=b"a\x07b\x08\n"),
        mail("8-bit text", b"Subject: \xc3\xa9", body=b"\xc3\xa9\n"),
    ],
    options=(
        "receive_override_options=no_header_body_checks,no_address_mappings",
        "content_filter=smtp:OTHER",
    ),
)

FILTERED = Scenario(
    "content filter",
    {
        "content_filter": "smtp:OTHER",
        "header_checks": "regexp:{ {/^X-Do: filter/ FILTER smtp:SINK}, {/^X-Do: redirect/ REDIRECT r@x.test},"
        " {/^X-Do: empty/ FILTER relay:}, {/^X-Do: dunno/ FILTER dunno} }",
        "receive_override_options": "no_address_mappings",
        "virtual_alias_maps": "inline:{r@dest.test=mapped@x.test}",
        "transport_maps": "inline:{other.test=smtp:SINK}",
    },
    [
        mail("all to the filter", recipients=(b"r@dest.test", b"x@other.test")),
        mail("FILTER overrides", b"X-Do: filter"),
        mail("REDIRECT overrides", b"X-Do: redirect"),
        mail("FILTER with an empty destination", b"X-Do: empty"),
        mail("null sender", sender=b""),
        mail("bare recipient", recipients=(b"r",)),
        mail("VERP", sender=b"list-@ex.test-@[]", recipients=(b"a@dest.test", b"b@dest.test")),
    ],
)

VERP = Scenario(
    "verp",
    {
        "default_verp_delimiters": "=+",
        "verp_delimiter_filter": "-=+",
        "canonical_maps": "inline:{ {list-@ex.test = mapped-@ex.test}, {other@ex.test = x@y.test} }",
        "virtual_alias_maps": "inline:{ {two@v.test = a@dest.test b@dest.test},"
        " {fail@v.test = x@gone.test} }",
        "transport_maps": "inline:{ {gone.test = error:gone} }",
        "recipient_delimiter": "+",
    },
    [
        mail("plain", sender=b"owner-@ex.test-@[]", recipients=(b"a@dest.test", b"b@dest.test")),
        mail("canonical", sender=b"list-@ex.test-@[]"),
        mail("other delimiters", sender=b"other=@ex.test-@[]"),
        mail("alias", sender=b"owner-@ex.test-@[]", recipients=(b"two@v.test",)),
        mail("extension", sender=b"owner-@ex.test-@[]", recipients=(b"a+b@dest.test",)),
        mail("bare recipient", sender=b"owner-@ex.test-@[]", recipients=(b"a",)),
        mail("strange recipient", sender=b"owner-@ex.test-@[]", recipients=(b"a b@dest.test", b"c%d.test")),
        mail("bounce", sender=b"owner-@ex.test-@[]", recipients=(b"y@gone.test",)),
        mail("bounce of an alias", sender=b"owner-@ex.test-@[]", recipients=(b"fail@v.test",)),
        mail("no domain", sender=b"owner-@[]"),
        mail("nothing before", sender=b"-@ex.test-@[]"),
        mail("a strange delimiter", sender=b"owner!@ex.test-@[]"),
        bare("From", b"Subject: x", sender=b"owner-@ex.test-@[]"),
        mail("not VERP", sender=b"owner-@ex.test"),
    ],
)

TROUBLE = Scenario(
    "table trouble",
    {
        "canonical_maps": "inline:{ok@ex.test=fine@ex.test}, fail:canonical",
        "canonical_classes": "envelope_sender",
        "virtual_alias_maps": "inline:{ok@dest.test=fine@dest.test}",
        "recipient_bcc_maps": "fail:bcc",
    },
    [
        mail("found before the trouble", sender=b"ok@ex.test", recipients=(b"ok@dest.test",)),
        mail("sender"),
        mail("null sender", sender=b""),
    ],
)

COPIED = Scenario(
    "copied line ends",
    {"header_checks": "pcre:FOLDER/header_checks"},
    [
        mail("REPLACE", b"X-Do: replace\n Bcc: two@evil.test"),
        mail("PREPEND", b"X-Do: prepend\n Bcc: two@evil.test"),
        mail("at the end", b"X-Do: end\n Bcc: two@evil.test"),
        mail("empty lines", b"X-Do: empty\n \n Bcc: two@evil.test"),
        mail("REDIRECT", b"X-Do: redirect\n x"),
        mail("BCC", b"X-Do: bcc\n x"),
    ],
    files={
        "header_checks": """\
/^X-Do: (replace\\n) (.*)/ REPLACE X-Was: $1$2
/^X-Do: (prepend\\n) (.*)/ PREPEND X-Was: $1$2
/^X-Do: (end\\n) (.*)/ REPLACE X-Was: $1
/^X-Do: (empty\\n) (\\n) (.*)/ REPLACE X-Was: $1$2$3
/^X-Do: (redirect\\n) (.*)/ REDIRECT ${1}x@redirect.test
/^X-Do: (bcc\\n) (.*)/ BCC ${1}x@bcc.test
"""
    },
)

OPENING = Scenario(
    "opening",
    {
        "message_strip_characters": r"\007",
        "message_reject_characters": r"\032\r",
        "header_checks": "regexp:{ {/^X-/ WARN}, {/^Z-/ DISCARD} }",
        "recipient_canonical_maps": "inline:{r@dest.test=mapped@dest.test}",
        "sender_canonical_maps": "inline:{s@ex.test=mapped@ex.test}",
    },
    [
        Case("From and CR", b"From\rx\n" + COMPLETE + b"\nb\n"),
        Case("a blank CR", b"\r\nb\r\n"),
        Case("a CR first", b"\r\rX: y\n" + COMPLETE + b"\nb\n"),
        Case("From, then CR", b"From a\n\rX: y\n" + COMPLETE + b"\nb\n"),
        Case("From with CRLF", b"From a\r\n\r\nb\r\n"),
        Case("stripped before a blank", b"\x07 X: y\n" + COMPLETE + b"\nb\n"),
        Case("stripped before From", b"\x07From a\n" + COMPLETE + b"\nb\n"),
        Case("stripped in From", b"Fr\x07om a\n" + COMPLETE + b"\nb\n"),
        Case("From with NUL", b"From \0x\n" + COMPLETE + b"\nb\n"),
        Case("a blank after From", b"From a\n X: y\n" + COMPLETE + b"\nb\n"),
        Case("a From line at the limit", b"From " + b"x" * 2043 + b"\nFrom a\n" + COMPLETE + b"\nb\n"),
        Case("a From line over the limit", b"From " + b"x" * 2044 + b"\nFrom a\n" + COMPLETE + b"\nb\n"),
        Case("a long From line, then a blank", b">From " + b"x" * 2100 + b"\n X: y\n" + COMPLETE + b"\nb\n"),
        Case("nothing but From", b"From a"),
        Case("nothing but half of it", b">>Fro"),
        mail("refused in the body", b"X-A: a", b"Resent-Message-Id: <r@x>", body=b"a\rb\0c\x1a\n"),
        mail("refused in a header", b"X-A: a", b"X-B: b", b"X-C: \x1a", b"X-D: d"),
        mail("discarded before", b"Z-A: a", b"X-B: b", body=b"\x1a\n"),
        mail("CR is not refused", b"X-A: a\r", body=b"b\r\n"),
        mail("names in the log", b"X-A: a", recipients=(b"a@dest.test", b"r@dest.test")),
    ],
)

REPLACED = Scenario(
    "replaced headers",
    {
        "message_drop_headers": "Received, Content-Type, X-Drop, Bcc",
        "mime_header_checks": "pcre:FOLDER/checks",
        "header_checks": "pcre:FOLDER/checks",
        "hopcount_limit": "3",
        "header_size_limit": "300",
    },
    [
        mail("MIME headers stay", b"Content-Type: text/plain", b"X-Drop: a"),
        bare("in place of a MIME header", b"Content-Id: To: joe", b"Content-Id: From: joe", b"X-A: b"),
        bare("dropped ones there", b"Content-Id: Bcc: joe", b"Content-Id: X-Drop: joe", b"X-A: b"),
        mail("a MIME header in place of another", b"X-R: Content-Type: text/plain"),
        mail("a blank before the colon", b"X-R: Subject : b", b"X-R: Subject\t:b"),
        mail("checks before too many hops", b"Received: a", b"X-W: a", b"Received: b"),
        mail("checks after too many hops", b"Received: a", b"Received: b", b"X-W: a", b"X-J: b"),
        mail("a rewritten header over the limit", b"Cc: " + b"joe, " * 50 + b"joe"),
        mail("another", b"Mail-Followup-To: " + b"joe, " * 50 + b"joe"),
    ],
    files={
        "checks": """\
/^Content-Id: (.*)/ REPLACE $1
/^X-R: (.*)/ REPLACE $1
/^X-W:/ WARN
/^X-J:/ REJECT
"""
    },
)

VALUES = Scenario(
    "map values",
    {
        "recipient_delimiter": "+",
        "canonical_maps": "texthash:FOLDER/canonical",
        "virtual_alias_maps": "texthash:FOLDER/virtual",
        "virtual_alias_domains": "x.test, z.test",
        "mydestination": "home.test",
        "local_transport": "smtp:SINK",
        "myorigin": "origin.test",
    },
    [
        Case(
            "same user elsewhere",
            b'To: b+e@c.test, d+e, "b"@c.test\n\nb\n',
            b"b+e@c.test",
            (b"b+e@x.test", b"c+e@home.test", b"b@x.test", b"d+e@origin.test"),
        ),
        Case(
            "quoted names",
            b"To: a@c.test, q@c.test\n\nb\n",
            b"a@c.test",
            (b"a@x.test", b"q@x.test", b"s@x.test"),
        ),
        Case("quoted in headers", b'To: "a!b", "a%b", c\nCc: "a@b"\nFrom: a\\@b, c\nSender: "a@b".c\n\nb\n'),
        Case("dots in headers", b"To: a.@b.test\nCc: J <.a@b.test>\nFrom: a..b@b.test, a.b@b.test\n\nb\n"),
        *(
            Case(f"first line of {length}", b"To: a, " + b"b" * length + b"@x.test, c@x.test\n\nb\n")
            for length in range(40, 48)
        ),
        Case("quoted names without a domain", b"", b"q u!c", (b"a,b!c", b"c%[1.2.3.4]", b"c!a..b", b"a!b")),
    ],
    files={
        "canonical": 'b@c.test @d.test\nd @d.test\na@c.test "a@b"\nq@c.test "a!b"\n',
        "virtual": "b@x.test @y.test\nc@home.test @y.test\n"
        'a@x.test "owner@old"\nq@x.test "a!b"\ns@x.test a!b\n',
    },
)


KEPT = Scenario(
    "kept headers",
    {
        "message_drop_headers": "x-none",
        "sender_canonical_maps": "inline:{ {m@relay.test = sender@c.test} }",
        "recipient_canonical_maps": "inline:{ {m@relay.test = recipient@c.test} }",
    },
    [
        Case("bcc", b"Bcc: bob, m\nTo: m\n\nb\n"),
        Case("resent-bcc", b"Resent-Bcc: bob, m\nTo: m\n\nb\n"),
        Case("return-path", b"Return-Path: <bob>\nReturn-Path: m\nFrom: m\n\nb\n"),
        Case("content-length", b"Content-Length: bob\n\nb\n"),
    ],
)


SCENARIOS = [
    KEPT,
    VALUES,
    OPENING,
    REPLACED,
    CHECKS,
    COPIED,
    RECEIVED,
    SOFT,
    MAPPING,
    CLASSES,
    BCC,
    HEADERS,
    REWRITE,
    LIMITS,
    OVERRIDES,
    FILTERED,
    VERP,
    TROUBLE,
    *MIME_SCENARIOS,
]
