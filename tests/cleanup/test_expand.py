"""
Virtual aliases, automatic copies and duplicates. Expectations were watched in a running Postfix.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.errors import tell
from qmqpd_tx.cleanup.recipients import Addressee, Addressees
from qmqpd_tx.interfaces import IntakeError, TableError
from tests.cleanup.maps import ID, inline, maps, recipients, sender, warnings
from tests.cleanup.support import run

NAMES = [f"n{number}@x.test" for number in range(6)]
GRAPHS = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), min_size=1
)


class AliasTests(SynchronousTestCase):
    """C{virtual_alias_maps}."""

    def expanded(self, address: bytes, **table: str) -> list[bytes]:
        """
        @param table: entries for names at x.test.
        @return: where a message for a name at x.test goes.
        """
        made = maps(virtual_alias_maps=inline({f"{name}@x.test": value for name, value in table.items()}))
        found = recipients(made, address + b"@x.test")
        self.assertEqual({original for _, original in found}, {address + b"@x.test"})
        return [where for where, _ in found]

    def test_order(self) -> None:
        """
        The first address takes the alias's place, the others go to the end.
        """
        self.assertEqual(
            self.expanded(
                b"two",
                two="t1@x.test, t2@x.test",
                t1="a1@y.test, a2@y.test",
                t2="a3@y.test a4@y.test",
            ),
            [b"a1@y.test", b"a3@y.test", b"a2@y.test", b"a4@y.test"],
        )

    def test_itself(self) -> None:
        """
        An alias that names itself stays among its addresses, wherever it comes up again.
        """
        self.assertEqual(self.expanded(b"a", a="b@y.test, A@x.test"), [b"b@y.test", b"A@x.test"])
        self.assertEqual(
            self.expanded(b"a", a="b@x.test, a@x.test", b="a@x.test, b@x.test"), [b"a@x.test", b"b@x.test"]
        )

    def test_catch_all(self) -> None:
        """
        A domain is given to one user, or to the same users elsewhere.
        """
        made = maps(
            virtual_alias_maps=inline({"@one.test": "u@y.test", "@other.test": "@z.test, u@y.test"}),
        )
        self.assertEqual(recipients(made, b"a@one.test"), [(b"u@y.test", b"a@one.test")])
        self.assertEqual(
            recipients(made, b"a+e@other.test"),
            [(b"a+e@z.test", b"a+e@other.test"), (b"u@y.test", b"a+e@other.test")],
        )

    def refused(self, address: bytes, complaint: str, **settings: str) -> None:
        """
        A recipient is refused, and the log says why.
        """
        made = maps(**settings)
        with warnings() as seen:
            error = self.assertRaises(IntakeError, recipients, made, address)
        self.assertEqual(error.text, "Error: 4.6.0 Alias expansion error")
        self.assertEqual((error.permanent, error.dsn), (False, "4.6.0"))
        self.assertEqual(seen, [f"ID: unreasonable {complaint} -- message not accepted, try again later"])

    def test_recursion_limit(self) -> None:
        """
        A chain may be as long as the limit says, with the look-up that ends it.
        """
        table = inline({f"c{n}@x.test": f"c{n + 1}@x.test" for n in range(3)})
        self.refused(
            b"c0@x.test",
            "virtual_alias_maps map nesting for c0@x.test",
            virtual_alias_maps=table,
            virtual_alias_recursion_limit="3",
        )
        made = maps(virtual_alias_maps=table, virtual_alias_recursion_limit="3")
        self.assertEqual(recipients(made, b"c1@x.test"), [(b"c3@x.test", b"c1@x.test")])

    def test_loop(self) -> None:
        """
        Two aliases for each other have no end.
        """
        self.refused(
            b"a@x.test",
            "virtual_alias_maps map nesting for a@x.test",
            virtual_alias_maps=inline({"a@x.test": "b@x.test", "b@x.test": "a@x.test"}),
        )

    def test_expansion_limit(self) -> None:
        """
        So many addresses may come of one recipient, duplicates counted; each recipient has its own count.
        """
        table = inline(
            {"a@x.test": "1@y.test, 2@y.test, 3@y.test", "d@x.test": "1@y.test 1@y.test 1@y.test 1@y.test"}
        )
        made = maps(virtual_alias_maps=table, virtual_alias_expansion_limit="3")
        self.assertEqual(len(recipients(made, b"a@x.test", b"A+e@x.test")), 6)
        self.refused(
            b"d@x.test",
            "virtual_alias_maps map expansion size for d@x.test",
            virtual_alias_maps=table,
            virtual_alias_expansion_limit="3",
        )

    def test_length_limit(self) -> None:
        """
        Addresses out of the table are limited in length; of a long one only the start is logged.
        """
        name = "x" * 400
        self.refused(
            b"a@x.test",
            f"virtual_alias_maps result {'x' * 300}...",
            virtual_alias_maps=inline({"a@x.test": f"{name}@y.test"}),
            virtual_alias_address_length_limit="100",
        )
        self.refused(
            b"a@x.test",
            "virtual_alias_maps result a+e+e+e+e@x.test...",
            virtual_alias_maps=inline({"a@x.test": "a+e@x.test"}),
            virtual_alias_address_length_limit="15",
        )
        made = maps(
            virtual_alias_maps=inline({"a@x.test": "12345678@y.test"}),
            virtual_alias_address_length_limit="15",
        )
        self.assertEqual(recipients(made, b"a@x.test"), [(b"12345678@y.test", b"a@x.test")])

    def test_old_name(self) -> None:
        """
        C{virtual_maps} is the default.
        """
        made = maps(virtual_maps=inline({"a@x.test": "b@y.test"}))
        self.assertEqual(recipients(made, b"a@x.test"), [(b"b@y.test", b"a@x.test")])

    def test_failure(self) -> None:
        """
        A table that cannot say refuses for now.
        """
        made = maps(virtual_alias_maps="fail:x")
        with warnings() as seen:
            tell(self.assertRaises(TableError, recipients, made, b"a@x.test"), ID)
        self.assertEqual(
            seen[-1],
            "ID: virtual_alias_maps map lookup problem for a@x.test -- message not accepted, try again later",
        )

    @given(GRAPHS, st.integers(1, 8), st.integers(1, 8))
    def test_ends(self, graph: dict[str, list[str]], recursion: int, expansion: int) -> None:
        """
        Whatever the aliases, expansion ends within its limits, and says whom it was for.
        """
        made = maps(
            virtual_alias_maps=inline({name: ", ".join(to) for name, to in graph.items()}),
            virtual_alias_recursion_limit=str(recursion),
            virtual_alias_expansion_limit=str(expansion),
        )
        try:
            found = recipients(made, b"n0@x.test")
        except IntakeError:
            return
        self.assertLessEqual(len(found), expansion)
        self.assertTrue(found)
        self.assertEqual({original for _, original in found}, {b"n0@x.test"})
        for address, _ in found:
            to = graph.get(address.decode())
            self.assertTrue(to is None or address.decode() in to, "an alias is left that is not its own")


class CopyTests(SynchronousTestCase):
    """Automatic copies."""

    def test_sender(self) -> None:
        """
        Who gets a copy by sender is looked up with the address that is stored.
        """
        made = maps(
            sender_bcc_maps=inline({"mapped@x.test": "copy", "null@x.test": "no@x.test"}),
            canonical_maps=inline({"raw@x.test": "mapped@x.test"}),
        )
        addressees = Addressees(made, ID)
        stored = sender(made, b"raw@x.test")
        self.assertEqual(
            run(addressees.of_sender(stored)), [Addressee(b"copy@origin.test", b"copy@origin.test", True)]
        )
        self.assertEqual(run(addressees.of_sender(b"")), ())
        self.assertEqual(run(addressees.of_sender(b"else@x.test")), ())

    def test_recipient(self) -> None:
        """
        By recipient it is looked up before aliases are expanded, and a copy gives no copies.
        """
        made = maps(
            recipient_bcc_maps=inline(
                {"a@x.test": "c@x.test", "b@y.test": "no@x.test", "c@x.test": "no@x.test"}
            ),
            virtual_alias_maps=inline({"a@x.test": "b@y.test", "c@x.test": "d@y.test"}),
        )
        self.assertEqual(
            run(Addressees(made, ID).of_recipient(b"a@x.test")),
            [Addressee(b"b@y.test", b"a@x.test"), Addressee(b"d@y.test", b"c@x.test", True)],
        )

    def test_quoted(self) -> None:
        """
        Addresses are looked up as they are written, with quotes, and then without.
        """
        plain = "regexp:{{/^[pr] [qs]@x.test$$/ plain@x.test}}"
        quoted = inline({'"r s"@x.test': "quoted@x.test"})
        made = maps(recipient_bcc_maps=f"{quoted} {plain}", sender_bcc_maps=f"{quoted} {plain}")
        for address, copy in ((b"p q@x.test", b"plain@x.test"), (b"r s@x.test", b"quoted@x.test")):
            expected = Addressee(copy, copy, True)
            self.assertEqual(run(Addressees(made, ID).of_recipient(address))[1:], [expected])
            self.assertEqual(run(Addressees(made, ID).of_sender(address)), [expected])

    def test_always(self) -> None:
        """
        Everything is copied to one address, which is mapped; then come the addresses of BCC actions.
        """
        made = maps(always_bcc="all", canonical_maps=inline({"all@origin.test": "log@x.test"}))
        self.assertEqual(
            run(Addressees(made, ID).copies([b"extra@x.test"])),
            [
                Addressee(b"log@x.test", b"log@x.test", True),
                Addressee(b"extra@x.test", b"extra@x.test", True),
            ],
        )

    def test_operators_words(self) -> None:
        """
        The value is one address, whatever it looks like.
        """
        made = maps(always_bcc="a@x.test, b@x.test")
        self.assertEqual([one.address for one in run(Addressees(made, ID).copies())], [b"a@x.test, b@x.test"])

    def test_control_characters(self) -> None:
        """
        What an action takes from a message does not bring control characters into the envelope.
        """
        (one,) = run(Addressees(maps(), ID).copies([b"a\nb\0@x.test"]))
        self.assertEqual(one.address, b"a b @x.test")

    def test_made_here(self) -> None:
        """
        Nobody gets copies of mail that is made here, but for those of BCC actions.
        """
        made = maps(
            always_bcc="all@x.test",
            sender_bcc_maps=inline({"a@x.test": "s@x.test"}),
            recipient_bcc_maps=inline({"a@x.test": "r@x.test"}),
        )
        for _ in range(2):
            quiet = Addressees(made, ID, copies=False)
            self.assertEqual(run(quiet.of_sender(b"a@x.test")), ())
            self.assertEqual(run(quiet.of_recipient(b"a@x.test")), [Addressee(b"a@x.test", b"a@x.test")])
            self.assertEqual([one.address for one in run(quiet.copies([b"x@y.test"]))], [b"x@y.test"])
            loud = Addressees(made, ID)
            self.assertEqual(len(run(loud.of_recipient(b"a@x.test"))), 2)


class DuplicateTests(SynchronousTestCase):
    """The duplicate filter."""

    SENT = (b"d@y.test", b"D@y.test", b"dup@x.test", b"d@y.test")

    def test_original(self) -> None:
        """
        An address that comes from two original addresses is two recipients.
        """
        made = maps(virtual_alias_maps=inline({"dup@x.test": "d@y.test, D@Y.test"}))
        self.assertEqual(
            recipients(made, *self.SENT), [(b"d@y.test", b"d@y.test"), (b"d@y.test", b"dup@x.test")]
        )

    def test_without_original(self) -> None:
        """
        Without original addresses it is one, copies included.
        """
        made = maps(
            virtual_alias_maps=inline({"dup@x.test": "d@y.test, D@Y.test"}),
            enable_original_recipient="no",
            always_bcc="d@y.test",
        )
        addressees = Addressees(made, ID)
        found = [one for address in self.SENT for one in run(addressees.of_recipient(address))]
        self.assertEqual(found, [Addressee(b"d@y.test", b"d@y.test")])
        self.assertEqual(run(addressees.copies()), [])

    def test_copy_is_no_duplicate(self) -> None:
        """
        With original addresses a copy is no duplicate of a recipient, but of another copy.
        """
        made = maps(always_bcc="d@y.test", recipient_bcc_maps=inline({"q@y.test": "d@y.test"}))
        addressees = Addressees(made, ID)
        run(addressees.of_recipient(b"d@y.test"))
        self.assertEqual(len(run(addressees.of_recipient(b"q@y.test"))), 2)
        self.assertEqual(run(addressees.copies()), [])

    def test_limit(self) -> None:
        """
        Only so many are remembered.
        """
        made = maps(duplicate_filter_limit="1")
        found = recipients(made, b"d@y.test", b"e@y.test", b"e@y.test", b"d@y.test")
        self.assertEqual([address for address, _ in found], [b"d@y.test", b"e@y.test", b"e@y.test"])

    @given(st.lists(st.sampled_from([b"a", b"A", b"a@origin.test", b"b@x.test", b""]), max_size=8))
    def test_original_is_what_was_sent(self, sent: list[bytes]) -> None:
        """
        Nobody is lost, and nobody gets an original address that was not sent.
        """
        found = recipients(maps(), *sent)
        self.assertEqual({one.lower() for one in sent}, {original.lower() for _, original in found})
        self.assertEqual(len(set(found)), len(found))
