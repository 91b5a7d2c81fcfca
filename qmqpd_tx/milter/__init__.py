"""
The client's side of the milter protocol: mail filters look at messages before they are in the queue.

Public: L{MilterSettings}, L{MilterSession} and what it takes and gives; L{reactor_connect}.
"""

from qmqpd_tx.milter.connect import reactor_connect
from qmqpd_tx.milter.draft import Draft, Key, by_address, by_everything
from qmqpd_tx.milter.filter import Connect, Decision, Verdict
from qmqpd_tx.milter.headers import make_header
from qmqpd_tx.milter.keep import ContentKeeper, InThread
from qmqpd_tx.milter.protocol import Event
from qmqpd_tx.milter.replies import (
    AddHeader,
    AddRecipient,
    Change,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    ReplaceBody,
)
from qmqpd_tx.milter.session import FilteredMessage, MilterSession, Visitor
from qmqpd_tx.milter.settings import DefaultAction, MilterSettings

__all__ = [
    "AddHeader",
    "AddRecipient",
    "Change",
    "ChangeHeader",
    "ChangeSender",
    "Connect",
    "ContentKeeper",
    "Decision",
    "DefaultAction",
    "DeleteRecipient",
    "Draft",
    "Event",
    "FilteredMessage",
    "InThread",
    "InsertHeader",
    "Key",
    "MilterSession",
    "MilterSettings",
    "ReplaceBody",
    "Verdict",
    "Visitor",
    "by_address",
    "by_everything",
    "make_header",
    "reactor_connect",
]
