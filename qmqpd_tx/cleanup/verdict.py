"""
What checks and filters have decided about one message so far. Pure.

Whoever inspects a part of a message writes into it;
L{IncomingMessage<qmqpd_tx.cleanup.incoming.IncomingMessage>} acts on it. Answers to cleanup(8)'s handling of
header_checks(5) actions.
"""

from __future__ import annotations

from attrs import Factory, define

from qmqpd_tx.interfaces import IntakeError


@define(slots=True)
class Verdict:
    """
    @ivar error: why the message is refused; the first reason stays.
    @ivar over: whether the rest of the content does not matter any more: it is refused, or thrown away. An
        attribute of its own, since it is asked for at every step.
    @ivar discard: whether it is accepted and thrown away.
    @ivar hold: whether it goes to the hold queue.
    @ivar passed: whether mail filters are not to see it (PASS).
    @ivar redirect: the address that gets it instead of all its recipients, as the operator wrote it; C{b""}:
        none. There is only one: nothing is looked up after it.
    @ivar content_filter: C{transport:nexthop} for all recipients; C{b""}: none. The last one counts.
    @ivar bcc: addresses that get it, too, as the operator wrote them, each once; the values mean nothing.
    @ivar flaw: what is wrong with its form (C{strict_8bitmime} and its like). Becomes the L{error} when the
        content has ended (L{settle}): a REJECT or DISCARD until then counts more.
    """

    error: IntakeError | None = None
    over: bool = False
    discard: bool = False
    hold: bool = False
    passed: bool = False
    redirect: bytes = b""
    content_filter: bytes = b""
    bcc: dict[bytes, None] = Factory(dict)
    flaw: IntakeError | None = None

    def reject(self, error: IntakeError) -> None:
        """
        Refuse the message.
        """
        if self.error is None:
            self.error = error
            self.over = True

    def throw_away(self) -> None:
        """
        Accept the message and discard it.
        """
        self.discard = self.over = True

    def object_to(self, error: IntakeError) -> None:
        """
        Refuse the message for its form, unless a check decides otherwise. The last error stays.
        """
        self.flaw = error

    def settle(self) -> None:
        """
        All of the content was seen.
        """
        if self.flaw is not None and not self.over:
            self.reject(self.flaw)
