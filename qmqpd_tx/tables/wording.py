"""
What messages about tables have in common.

Takes bytes of a table or a key, gives text that can be printed, whatever they are; and says what Postfix says
of a value that is empty. Pure but for the log; never fails.
"""

from __future__ import annotations

from qmqpd_tx.events import Logger

log = Logger(namespace="qmqpd_tx.tables")


def printable(data: bytes, length: int = 200) -> str:
    """
    @return: the beginning of a text, for a message: what cannot be printed is a question mark.
    """
    text = data[:length].decode("utf-8", "replace").replace("\N{REPLACEMENT CHARACTER}", "?")
    return "".join(char if char.isprintable() else "?" for char in text)


def not_empty(table: str, key: bytes, value: bytes | None) -> bytes | None:
    """
    @param table: C{type:name}, for the warning.
    @param key: what was looked up.
    @return: the value; L{None}, with a warning, where it is empty.
    """
    if value != b"":
        return value
    log.warn(
        "table {table}: key {key}: empty string result is not allowed; "
        "it should return NO RESULT in case of NOT FOUND",
        table=table,
        key=printable(key, 80),
    )
    return None
