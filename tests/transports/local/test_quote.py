"""
The pure pieces of local delivery: From quoting, the loop check, user look-up.
"""

from __future__ import annotations

import pwd
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.transports.local import headers
from qmqpd_tx.transports.local.mbox import FromQuoter
from qmqpd_tx.transports.local.users import any_user, passwd_lookup
from tests.transports.fakes import Content

PIECES = st.lists(
    st.sampled_from([b"\n", b"From ", b"From", b"F", b"r", b"om ", b">", b"x", b" "]), max_size=40
)


class FromQuoterTests(SynchronousTestCase):
    """C{From } at the beginning of lines."""

    @given(PIECES, st.lists(st.integers(0, 200), max_size=8))
    def test_any_chunking(self, pieces: list[bytes], cuts: list[int]) -> None:
        """However the message is cut, the mailbox holds the same."""
        data = b"From me\n" + b"".join(pieces)
        lines = data.split(b"\n")
        quoted = [lines[0], *(b">" + line if line.startswith(b"From ") else line for line in lines[1:])]
        expected = b"\n".join(quoted) + (b"\n" if data.endswith(b"\n") else b"\n\n")
        quoter = FromQuoter()
        edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        out = [quoter.feed(data[a:b]) for a, b in pairwise(edges)]
        self.assertEqual(b"".join([*out, quoter.finish()]), expected)


class DeliveredToTests(SynchronousTestCase):
    """Reading Delivered-To lines, a slice at a time."""

    @given(
        st.lists(
            st.sampled_from([b"Delivered-To: a@b\n", b"X: y\n", b" folded\n", b"\n", b"delivered-to:C@d\n"]),
            max_size=12,
        ),
        st.integers(1, 40),
    )
    def test_any_slice(self, lines: list[bytes], size: int) -> None:
        """The slice size makes no difference to whole lines that fit in one."""
        data = b"".join(lines)
        header = b"\n" + data
        header = header[: header.index(b"\n\n")] if b"\n\n" in header else header
        expected = set()
        if b"\nDelivered-To: a@b" in header:
            expected.add(b"a@b")
        if b"\ndelivered-to:C@d" in header:
            expected.add(b"c@d")
        self.patch(headers, "_SLICE", size + 20)
        found = self.successResultOf(Deferred.fromCoroutine(headers.delivered_to(Content(data))))
        self.assertEqual(found, expected)


class LookupTests(SynchronousTestCase):
    """Who becomes part of a path."""

    def test_names_that_are_never_asked(self) -> None:
        """A name that could leave its folder does not even reach the user database."""
        asked: list[str] = []

        def getpwnam(name: str) -> pwd.struct_passwd:
            asked.append(name)
            return pwd.struct_passwd((name, "x", 1, 1, "", "/home", ""))

        look_up = passwd_lookup(getpwnam)
        for name in (b"", b"a/b", b"../x", b"..", b".", b".x", b"a\0b"):
            self.assertIsNone(look_up(name))
            self.assertIsNone(any_user(name))
        self.assertEqual(asked, [])
        found = look_up(b"anna")
        assert found is not None
        self.assertEqual((found.name, found.home), ("anna", "/home"))

    def test_strange_entry(self) -> None:
        """A user database that answers with a path is not believed."""
        entry = pwd.struct_passwd(("../x", "x", 1, 1, "", "/home", ""))
        self.assertIsNone(passwd_lookup(lambda name: entry)(b"anna"))

    def test_unknown(self) -> None:
        """The system's own database does not know this one."""
        self.assertIsNone(passwd_lookup()(b"no-such-user-here"))
