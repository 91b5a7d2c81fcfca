"""
From queue files to what a listing shows.

Takes a C{queue_directory}; gives a L{ListedMessage} for each message, with the reason why each recipient
waits. Reads only. What cannot be read is reported and left out.

Answers to: showq(8).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from qmqpd_tx.address import quote_address
from qmqpd_tx.admin.listing import ListedMessage, ListedRecipient
from qmqpd_tx.bounce.records import decode_log
from qmqpd_tx.spool.inspect import QueueListing, list_messages


def listed_messages(folder: Path, damaged: Callable[[str], None]) -> Iterator[ListedMessage]:
    """
    @param folder: C{queue_directory}.
    @param damaged: called with what is wrong with a file that cannot be understood.
    @return: the messages, in no particular order.
    @raise OSError: a folder cannot be read.
    """
    # Postfix lists all recipients of a message, however many.
    for found in list_messages(os.fspath(folder), recipient_limit=sys.maxsize):
        if found.problem is not None:
            damaged(f"{found.queue.value}/{found.queue_id}: {found.problem}")
        else:
            yield listed(found)


def listed(found: QueueListing) -> ListedMessage:
    """
    @return: a message as it is shown: recipients that were tried in the order of their defer log, then the
        others.
    """
    waiting = dict.fromkeys(found.recipients)
    tried = {
        failed.address: failed.text
        for failed in decode_log(list(found.reasons))
        # Who is in the log but not in the file any more was delivered or bounced since.
        if failed.address in waiting
    }
    recipients = [ListedRecipient(_text(address), reason) for address, reason in tried.items()]
    recipients += [ListedRecipient(_text(address)) for address in waiting if address not in tried]
    return ListedMessage(
        queue_name=found.queue.value,
        queue_id=found.queue_id,
        arrival_time=found.arrival_time,
        size=found.size,
        sender=_text(found.sender),
        recipients=recipients,
    )


def _text(address: bytes) -> str:
    return quote_address(address).decode("utf-8", "surrogateescape")
