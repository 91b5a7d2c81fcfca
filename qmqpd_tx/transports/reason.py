"""
The reason texts of the agents that deliver nowhere: an optional RFC 3463 code, then text.

Takes the nexthop of a route, gives code and text. A code of the wrong class is ignored with a warning.
Pure but for the warning. Answers to Postfix's dsn_split.
"""

from __future__ import annotations

import re

from qmqpd_tx.events import Logger

_CODE = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+(.*))?", re.DOTALL)


def split_reason(reason: str, default: str, doing: str, log: Logger) -> tuple[str, str]:
    """
    @param reason: as in C{5.1.2 no such place}.
    @param default: the code when there is none; its class is the one wanted.
    @param doing: for the warning.
    @return: the code and the text.
    """
    match = _CODE.fullmatch(reason.strip())
    if match is None:
        return default, reason
    code, text = match.groups()
    if code[0] != default[0]:
        log.warn('{doing}: ignoring dsn code "{code}"', doing=doing, code=code)
        code = default
    return code, text or ""
