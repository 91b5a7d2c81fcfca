"""
Bounce and defer log records: whole ones come back, damaged ones never raise.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.bounce import FailedRecipient, decode_log, decode_record, encode_outcome
from qmqpd_tx.message import Recipient
from qmqpd_tx.status import Action, Outcome

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
outcomes = st.builds(
    Outcome,
    st.builds(Recipient, st.binary(max_size=30), st.binary(max_size=30), st.just(0)),
    st.just(Action.BOUNCED),
    st.sampled_from(["5.1.1", "4.4.1"]),
    texts,
    texts,
    st.none() | texts,
    st.none() | texts,
)


def outcome(address: bytes, text: str) -> Outcome:
    """
    @return: a failed recipient.
    """
    return Outcome(Recipient(address, address, 0), Action.BOUNCED, "5.1.1", text)


class Records(SynchronousTestCase):
    """One recipient each."""

    @given(outcomes)
    def test_round_trip(self, outcome: Outcome) -> None:
        """
        What was written is read.
        """
        self.assertEqual(
            decode_record(encode_outcome(outcome)),
            FailedRecipient(
                outcome.recipient.address,
                outcome.recipient.original,
                outcome.dsn,
                outcome.text,
                outcome.relay,
                outcome.remote_mta,
                outcome.diagnostic,
            ),
        )

    @given(st.binary(max_size=60))
    def test_noise(self, record: bytes) -> None:
        """
        Anything at all is read without an exception.
        """
        decode_record(record)

    def test_truncated(self) -> None:
        """
        A torn record keeps its recipient; without one it is nothing.
        """
        record = encode_outcome(outcome(b"a@x.test", "no such user"))
        seen = {decode_record(record[:length]) for length in range(len(record))}
        self.assertIn(None, seen)
        self.assertEqual({found.address for found in seen if found}, {b"a@x.test"})
        self.assertEqual({found.text for found in seen if found}, {"unknown error", "no such user"})

    def test_unknown_tags(self) -> None:
        """
        A later version may say more.
        """
        record = b"4:Znew," + encode_outcome(outcome(b"a@x.test", "no such user"))
        found = decode_record(record)
        assert found is not None
        self.assertEqual((found.address, found.text), (b"a@x.test", "no such user"))

    def test_log(self) -> None:
        """
        Each recipient once, with what was said last; damaged records are left out.
        """
        log = [
            encode_outcome(outcome(b"a@x.test", "first")),
            encode_outcome(outcome(b"b@x.test", "other")),
            b"\0damaged",
            encode_outcome(outcome(b"a@x.test", "second")),
        ]
        self.assertEqual(
            [(found.address, found.text) for found in decode_log(log)],
            [(b"a@x.test", "second"), (b"b@x.test", "other")],
        )
