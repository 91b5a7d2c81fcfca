"""
What a lookup table is, and what a kind of lookup table is.

Takes nothing, does nothing: the two interfaces of this room. A table maps a key to a value, both
L{bytes} (addresses are bytes); it answers at once, from memory, and never fails a lookup. Answers to
Postfix's dictionaries (DATABASE_README). Whatever is wrong with a table is said when it is opened.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface


class ILookupTable(Interface):
    """An open table."""

    name = Attribute("L{str}: the C{type:name} that it was opened as, for messages.")
    fixed_keys = Attribute(
        "L{bool}: whether keys are fixed strings, so that a caller also looks up the parts of an address "
        "(user, domain, parent domains); with patterns the whole address is looked up, once."
    )

    def lookup(key: bytes) -> bytes | None:
        """
        @param key: in any case: a table with fixed keys folds it.
        @return: the value, never empty, or L{None} when there is none.
        """


class ILookupTableType(Interface):
    """
    A kind of lookup table, found by the part before the colon. Built-in kinds come first, then the
    Twisted plugins (package C{twisted.plugins}) that provide this interface.
    """

    type = Attribute("L{str}: the name before the colon, as in C{texthash}.")

    def open(name: str, parameter: str) -> ILookupTable:
        """
        @param name: what comes after the colon.
        @param parameter: on behalf of which parameter, for messages.
        @return: a table whose content was read. Opening it again reads it again.
        @raise ConfigError: it cannot be read or makes no sense; the text names file and line.
        """
