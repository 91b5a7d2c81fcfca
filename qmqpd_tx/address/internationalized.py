"""
Internationalized domain names: from the form that people read (U-labels, UTF-8) to the one in the DNS
(A-labels, C{xn--...}). Pure.

Takes a domain; gives its ASCII form, or L{None} for one that has none. Names in ASCII stay as they are,
whatever they are. Answers to Postfix's use of the DNS with C{smtputf8_enable}; IDNA2008 with the mapping of
UTS 46 (case, width), as browsers have it.
"""

from __future__ import annotations

import re
from functools import lru_cache

import idna

_DOTS = re.compile("[.\u3002\uff0e\uff61]")

_DEVIATIONS = str.maketrans({"ß": "ss", "ẞ": "ss", "ς": "\u03c3", "\u200c": "", "\u200d": ""})
"""What IDNA2003 maps and IDNA2008 keeps (UTS 46 section 4, transitional processing)."""


@lru_cache(maxsize=1024)
def ascii_domain(domain: str, transitional: bool = False) -> str | None:
    """
    @param domain: in any mixture of U-labels and A-labels.
    @param transitional: C{enable_idna2003_compatibility}.
    @return: the domain with A-labels only, or L{None} when it has no such form.
    """
    if domain.isascii():
        return domain
    labels = []
    for label in _DOTS.split(domain):
        if not label.isascii():
            if transitional:
                label = label.translate(_DEVIATIONS)
            try:
                label = idna.encode(label, uts46=True).decode("ascii")
            except (idna.IDNAError, UnicodeError):
                return None
        labels.append(label)
    return ".".join(labels)
