"""
Canonical mapping and masquerading, by class of address. Expectations were watched in a running Postfix.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.errors import tell
from qmqpd_tx.cleanup.masquerade import Masquerade
from qmqpd_tx.eager import now_or_later
from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables import StringMatchList
from tests.cleanup.maps import ID, header, inline, maps, recipients, sender, warnings

NAMES = st.sampled_from([f"n{number}@x.test" for number in range(6)])


class CanonicalTests(SynchronousTestCase):
    """C{canonical_maps} and its relatives."""

    def test_everywhere(self) -> None:
        """
        By default all addresses of a message are mapped.
        """
        made = maps(canonical_maps=inline({"a@x.test": "b@y.test"}))
        self.assertEqual(sender(made, b"a@x.test"), b"b@y.test")
        self.assertEqual(recipients(made, b"A@X.test"), [(b"b@y.test", b"A@X.test")])
        self.assertEqual(header(made, b"To: N <a@x.test>,   c@x.test"), b"To: N <b@y.test>, c@x.test")
        self.assertEqual(header(made, b"From:  a@x.test"), b"From: b@y.test")
        self.assertEqual(header(made, b"X-To: a@x.test"), b"X-To: a@x.test")

    def test_spacing_stays(self) -> None:
        """
        A header without a mapped address is not touched, the second time either.
        """
        made = maps(canonical_maps=inline({"a@x.test": "b@y.test"}))
        line = b'To:  "a@x.test"   <c@x.test> ,d@x.test'
        for _ in range(2):
            self.assertEqual(header(made, line), line)

    def test_classes(self) -> None:
        """
        Each class parameter limits its own maps.
        """
        made = maps(
            canonical_maps=inline({"a@x.test": "both@y.test"}),
            canonical_classes="header_sender, envelope_recipient",
            sender_canonical_maps=inline({"a@x.test": "s@y.test"}),
            sender_canonical_classes="envelope_sender",
            recipient_canonical_maps=inline({"a@x.test": "r@y.test"}),
            recipient_canonical_classes="header_recipient",
        )
        self.assertEqual(sender(made, b"a@x.test"), b"s@y.test")
        self.assertEqual(recipients(made, b"a@x.test"), [(b"both@y.test", b"a@x.test")])
        self.assertEqual(header(made, b"From: a@x.test"), b"From: both@y.test")
        self.assertEqual(header(made, b"Cc: a@x.test"), b"Cc: r@y.test")

    def test_specific_first(self) -> None:
        """
        The maps for senders or recipients come before those for both, which see their result.
        """
        made = maps(
            sender_canonical_maps=inline({"a@x.test": "s@y.test"}),
            canonical_maps=inline({"a@x.test": "wrong@y.test", "s@y.test": "right@y.test"}),
        )
        self.assertEqual(sender(made, b"a@x.test"), b"right@y.test")

    def test_unknown_class(self) -> None:
        """
        A class that there is not is an error.
        """
        self.assertRaises(ConfigError, maps, canonical_classes="envelope_senders")
        self.assertRaises(ConfigError, maps, sender_canonical_classes="envelope_recipient")
        self.assertRaises(ConfigError, maps, masquerade_classes="all")

    def test_same_user_elsewhere(self) -> None:
        """
        C{@domain} as a value keeps the user, and the extension as often as it was there.
        """
        table = inline({"b@x.test": "@y.test", "c": "@y.test"})
        for propagate, extension in (("canonical", b"+e"), ("virtual", b"")):
            made = maps(canonical_maps=table, propagate_unmatched_extensions=propagate)
            for address, local in ((b"b@x.test", b"b"), (b"c@origin.test", b"c")):
                self.assertEqual(sender(made, address), local + b"@y.test")
                extended = address.replace(b"@", b"+e@")
                self.assertEqual(sender(made, extended), local + extension + b"@y.test")
        made = maps(canonical_maps=table, append_at_myorigin="no")
        self.assertEqual(sender(made, b"c"), b"c@y.test")

    def test_not_utf8(self) -> None:
        """
        With C{smtputf8_enable} patterns are not asked for what is not UTF-8.
        """
        for enabled, expected in (("yes", b"a\xff@x.test"), ("no", b"all@x.test")):
            made = maps(smtputf8_enable=enabled, canonical_maps="regexp:{{/^a/ all@x.test}}")
            self.assertEqual(sender(made, b"a\xff@x.test"), expected)
            self.assertEqual(sender(made, b"a\xc3\xa9@x.test"), b"all@x.test")

    def test_quoted_value(self) -> None:
        """
        What stands in quotes in a value, without a domain, is a user's name.
        """
        table = inline({"a@x.test": '"owner@old"', "b@x.test": '"a!b"', "c@x.test": "a!b"})
        made = maps(canonical_maps=table)
        for address, expected in (
            (b"a@x.test", b"owner@old@origin.test"),
            (b"b@x.test", b"a!b@origin.test"),
            (b"c@x.test", b"b@a"),
        ):
            self.assertEqual(sender(made, address), expected)

    def test_results(self) -> None:
        """
        Results are completed, unquoted, and keep the extension that the key left out.
        """
        table = {
            "a@x.test": "bare",
            "b@x.test": '"q q"@y.test',
            "c@x.test": "Name <n@y.test>",
            "@d.test": "@e.test",
        }
        made = maps(canonical_maps=inline(table))
        for address, expected in {
            b"a@x.test": b"bare@origin.test",
            b"a+e@x.test": b"bare+e@origin.test",
            b"b+e@x.test": b"q q+e@y.test",
            b"c@x.test": b"n@y.test",
            b"z+e@d.test": b"z+e@e.test",
        }.items():
            self.assertEqual(sender(made, address), expected)
        made = maps(canonical_maps=inline(table), propagate_unmatched_extensions="virtual")
        self.assertEqual(sender(made, b"a+e@x.test"), b"bare@origin.test")
        self.assertEqual(sender(made, b"z+e@d.test"), b"z+e@e.test")

    def test_several_results(self) -> None:
        """
        Of several addresses the first is taken, with a warning for each look-up.
        """
        made = maps(canonical_maps=inline({"a@x.test": "b@y.test, c@y.test"}))
        for _ in range(2):
            with warnings() as seen:
                self.assertEqual(sender(made, b"a@x.test"), b"b@y.test")
            self.assertEqual(seen, ["ID: multi-valued canonical_maps entry for a@x.test"])

    def test_depth(self) -> None:
        """
        Ten steps, and then it stays where it is, with a warning.
        """
        made = maps(canonical_maps=inline({f"c{n}@x.test": f"c{n + 1}@x.test" for n in range(12)}))
        with warnings() as seen:
            self.assertEqual(sender(made, b"c3@x.test"), b"c12@x.test")
            self.assertEqual(seen, [])
            self.assertEqual(sender(made, b"c0@x.test"), b"c10@x.test")
        self.assertEqual(
            seen,
            [
                "ID: unreasonable canonical_maps map nesting for c10@x.test"
                " -- message not accepted, try again later"
            ],
        )

    def test_itself(self) -> None:
        """
        An address that is mapped to itself ends the search; its spelling is the table's.
        """
        made = maps(canonical_maps=inline({"a@x.test": "A@X.test"}))
        with warnings() as seen:
            self.assertEqual(sender(made, b"a@x.test"), b"A@X.test")
        self.assertEqual(seen, [])

    def test_no_address(self) -> None:
        """
        A value that is no address is a table error, to be logged with what it was asked for.
        """
        made = maps(canonical_maps=inline({"a@x.test": "(nobody)"}))
        with warnings() as seen:
            tell(self.assertRaises(TableError, sender, made, b"a@x.test"), ID)
        self.assertEqual(
            seen,
            [
                'ID: canonical_maps lookup of a@x.test returns non-address result "(nobody)"',
                "ID: canonical_maps map lookup problem for a@x.test -- message not accepted, try again later",
            ],
        )

    def test_control_characters(self) -> None:
        """
        Nor does a table bring control characters into a message.
        """
        made = maps(canonical_maps=inline({"a@x.test": '"b\x01c"@y.test'}))
        self.assertRaises(TableError, header, made, b"To: a@x.test")

    def test_null_sender(self) -> None:
        """
        The null sender is not mapped, whatever it is called.
        """
        made = maps(canonical_maps=inline({"@origin.test": "catch@x.test"}))
        self.assertEqual(sender(made, b""), b"")
        self.assertEqual(sender(made, b"Mailer-Daemon"), b"")
        self.assertEqual(recipients(made, b""), [(b"catch@x.test", b"")])

    def test_to_the_null_address(self) -> None:
        """
        A table may give the null address, the second time as well as the first.
        """
        made = maps(canonical_maps=inline({"a@x.test": '""'}))
        for _ in range(2):
            self.assertEqual(sender(made, b"a@x.test"), b"")
            self.assertEqual(recipients(made, b"a@x.test"), [(b"", b"a@x.test")])
            self.assertEqual(header(made, b"From: a@x.test"), b'From: ""')
            self.assertEqual(header(made, b"To: X <a@x.test>, b@x.test"), b'To: X <"">, b@x.test')

    def test_remote_headers(self) -> None:
        """
        Headers of mail from elsewhere are completed with another domain, or not touched; envelopes are ours.
        """
        made = maps(canonical_maps=inline({"a@x.test": "b", "foo@else.test": "found@y.test"}))
        remote = made.variant(remote_domain="else.test")
        self.assertEqual(
            header(remote, b"To: joe, foo, a@x.test"), b"To: joe@else.test, found@y.test, b@origin.test"
        )
        self.assertEqual(sender(remote, b"joe"), b"joe@origin.test")
        untouched = made.variant(remote_domain="")
        self.assertEqual(header(untouched, b"To: joe, a@x.test"), b"To: joe, a@x.test")
        self.assertEqual(sender(untouched, b"a@x.test"), b"b@origin.test")
        self.assertFalse(untouched.maps_headers)
        self.assertTrue(made.maps_headers)

    def test_without_mappings(self) -> None:
        """
        Without mappings addresses are completed and nothing else.
        """
        made = maps(
            canonical_maps=inline({"a@x.test": "b@y.test"}),
            virtual_alias_maps=inline({"a@x.test": "b@y.test"}),
            masquerade_domains="x.test",
        ).variant(mappings=False)
        self.assertEqual(sender(made, b"a@x.test"), b"a@x.test")
        self.assertEqual(
            recipients(made, b"a@x.test", b"joe"), [(b"a@x.test",) * 2, (b"joe@origin.test", b"joe")]
        )
        self.assertEqual(header(made, b"To: a@h.x.test, joe"), b"To: a@h.x.test, joe@origin.test")

    def test_token_limit(self) -> None:
        """
        What is beyond the limit is dropped from a header that is rewritten, and only from such a one.
        """
        made = maps(canonical_maps=inline({"a@x.test": "b@y.test"}), header_address_token_limit="12")
        self.assertEqual(header(made, b"To: a@x.test, c@x.test, d@x.test"), b"To: b@y.test, c@x.test, ")
        self.assertEqual(
            header(made, b"To: d@x.test,  c@x.test, a@x.test"), b"To: d@x.test,  c@x.test, a@x.test"
        )

    @given(st.dictionaries(NAMES, NAMES))
    def test_ends(self, table: dict[str, str]) -> None:
        """
        Whatever the table, mapping ends, and a result that was not cut short is not mapped again.
        """
        if not table:
            return
        made = maps(canonical_maps=inline(table))
        with warnings() as seen:
            once = sender(made, b"n0@x.test")
        if not seen:
            self.assertEqual(sender(made, once), once)


class RememberedTests(SynchronousTestCase):
    """What is known of addresses and headers that come again."""

    LINE = b"To: a@x.test, c@x.test"

    def test_stable(self) -> None:
        """
        What a stable table has made of them is known from then on, also that nothing changes.
        """
        made = maps(canonical_maps=inline({"a@x.test": "b@y.test"}))
        for address, result in ((b"a@x.test", b"b@y.test"), (b"c@x.test", b"c@x.test"), (b"", b"")):
            self.assertIsNone(made.senders.get(address))
            sender(made, address)
            self.assertEqual(made.senders.get(address), result)
        for line, known in ((self.LINE, b" b@y.test, c@x.test"), (b"From: c@x.test", b"")):
            self.assertIsNone(made.headers.get(line))
            header(made, line)
            self.assertEqual(made.headers.get(line), known)
        remote = made.variant(True, "else.test")
        self.assertIsNone(remote.headers.get(self.LINE))
        self.assertIsNone(made.variant(False).senders.get(b"a@x.test"))

    def test_not_stable(self) -> None:
        """
        A table that may say something else another time is asked each time.
        """
        made = maps(canonical_maps="randmap:{ b@y.test }")
        for _ in range(2):
            self.assertEqual(sender(made, b"a@x.test"), b"b@y.test")
            self.assertEqual(header(made, self.LINE), b"To: b@y.test, b@y.test")
            self.assertEqual(header(made, b"To: b@y.test"), b"To: b@y.test")
        self.assertIsNone(made.senders.get(b"a@x.test"))
        self.assertIsNone(made.headers.get(self.LINE))
        self.assertIsNone(made.headers.get(b"To: b@y.test"))

    def test_warned_of(self) -> None:
        """
        What there is to warn of is warned of each time.
        """
        made = maps(canonical_maps=inline({"a@x.test": "b@y.test, c@y.test"}))
        with warnings() as seen:
            sender(made, b"a@x.test")
            header(made, b"From: a@x.test")
            once = len(seen)
            sender(made, b"a@x.test")
            header(made, b"From: a@x.test")
        self.assertGreaterEqual(once, 2)
        self.assertEqual(len(seen), 2 * once)

    def test_bounds(self) -> None:
        """
        What is long is not remembered.
        """
        made = maps(canonical_maps=inline({"a@x.test": "b@y.test"}))
        long = b"a" * 300 + b"@x.test"
        sender(made, long)
        header(made, b"To: " + long)
        self.assertIsNone(made.senders.get(long))
        self.assertIsNone(made.headers.get(b"To: " + long))


class MasqueradeTests(SynchronousTestCase):
    """C{masquerade_domains}."""

    def test_domains(self) -> None:
        """
        The first domain that fits counts; C{!} keeps; the result is in lower case.
        """
        hide = Masquerade([b"!no.ex.test", b"foo.ex.test", b"ex.test"], StringMatchList([], "x"))
        for address, expected in {
            b"u@A.B.EX.test": b"u@ex.test",
            b"u@a.foo.ex.test": b"u@foo.ex.test",
            b"u@foo.ex.test": b"u@foo.ex.test",
            b"u@a.no.ex.test": b"u@a.no.ex.test",
            b"u@no.ex.test": b"u@no.ex.test",
            b"u@EX.test": b"u@EX.test",
            b"u@xex.test": b"u@xex.test",
            b"u": b"u",
        }.items():
            self.assertEqual(now_or_later(hide.apply(address)), expected)

    def test_exceptions(self) -> None:
        """
        Some users are shown as they are, in any case; an extension makes another user. It is a list like
        others: with files, tables and exceptions of its own.
        """
        path = Path(self.mktemp()).absolute()
        path.write_text("daemon\n")
        exceptions = f"Root, !bob, inline:{{bob=x,ann=x}}, {path}"
        made = maps(masquerade_domains="ex.test", masquerade_exceptions=exceptions)
        for address, expected in {
            b"ROOT@a.ex.test": b"ROOT@a.ex.test",
            b"root+x@a.ex.test": b"root+x@ex.test",
            b"ann@a.ex.test": b"ann@a.ex.test",
            b"bob@a.ex.test": b"bob@ex.test",
            b"daemon@a.ex.test": b"daemon@a.ex.test",
            b"joe@a.ex.test": b"joe@ex.test",
        }.items():
            self.assertEqual(sender(made, address), expected)

    def test_exceptions_that_cannot_be_asked(self) -> None:
        """
        A table of exceptions that fails is a failure, and not an answer.
        """
        made = maps(masquerade_domains="ex.test", masquerade_exceptions="fail:x")
        self.assertRaises(TableError, sender, made, b"joe@a.ex.test")

    def test_classes(self) -> None:
        """
        By default envelope recipients are left alone; mapping comes first.
        """
        made = maps(masquerade_domains="ex.test", canonical_maps=inline({"c@x.test": "d@b.ex.test"}))
        self.assertEqual(sender(made, b"c@x.test"), b"d@ex.test")
        self.assertEqual(recipients(made, b"c@x.test"), [(b"d@b.ex.test", b"c@x.test")])
        self.assertEqual(header(made, b"To: u@a.ex.test"), b"To: u@ex.test")
        made = maps(masquerade_domains="ex.test", masquerade_classes="envelope_recipient")
        self.assertEqual(recipients(made, b"u@a.ex.test"), [(b"u@ex.test", b"u@a.ex.test")])
        self.assertEqual(sender(made, b"u@a.ex.test"), b"u@a.ex.test")
