"""
Envelope addresses on the wire.

Takes the address as the queue has it (unquoted), gives what stands between C{<} and C{>}; quotes the
local part where RFC 5321 section 4.1.2 wants it (C{smtp_quote_rfc821_envelope}), and encodes RFC 3461
ORCPT values. A domain goes out as it is, bad or not: the server may judge that, as with Postfix. Fails with
L{BadAddress} for what must never reach a server: a line end or NUL, which could start another command; and in
a domain other controls, and brackets, quotes and backslashes, which could end the path early, or never.
"""

from __future__ import annotations

import re

_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff\-]+"
_DOMAIN = rb"[^\x00-\x20<>()\",;\\@\x7f]+"
_PLAIN = re.compile(rb"%b(?:\.%b)*@%b" % (_ATOM, _ATOM, _DOMAIN))
_DOT_ATOM = re.compile(rb"%b(?:\.%b)*" % (_ATOM, _ATOM))
_UNSAFE_DOMAIN = re.compile(rb'[\x00-\x1f<>"\\\x7f]')
_CONTROL = re.compile(rb"[\r\n\0]")
_SPECIAL = re.compile(rb'([\\"])')
_NOT_XTEXT = re.compile(rb"[^!-*,-<>-~]")
_NOT_UNITEXT = re.compile(r"[^!-*,-<>-\[\]-~]")


class BadAddress(Exception):
    """An address that cannot be said in SMTP; the text says why."""


def wire_address(address: bytes, quote: bool) -> bytes:
    """
    @param address: the envelope address; C{b""} is the null sender.
    @param quote: whether to quote a local part that needs it.
    @return: the path without angle brackets.
    @raise BadAddress: it must not be sent.
    """
    if _PLAIN.fullmatch(address) or not address:
        return address
    if _CONTROL.search(address):
        raise BadAddress("address contains a line end or a null byte")
    local, at, domain = address.rpartition(b"@")
    if not at:
        local, domain = address, b""
    elif _UNSAFE_DOMAIN.search(domain):
        raise BadAddress("bad domain name in address")
    if quote and not _DOT_ATOM.fullmatch(local):
        local = b'"' + _SPECIAL.sub(rb"\\\1", local) + b'"'
    elif b">" in local:
        raise BadAddress("unquoted angle bracket in address")
    return local + at + domain


def orcpt_parameter(original: bytes, utf8: bool = False) -> bytes:
    """
    @param original: the original recipient as the client gave it.
    @param utf8: C{smtputf8_enable}.
    @return: C{ ORCPT=rfc822;...} with RFC 3461 xtext; with C{utf8} C{ ORCPT=utf-8;...} in the ASCII form of
        RFC 6533 for an address beyond ASCII; or nothing when the address cannot be said.
    """
    if not original or (not utf8 and not original.isascii()):
        return b""
    try:
        path = wire_address(original, True)
        if not path.isascii():
            text = path.decode("utf-8")
            embedded = _NOT_UNITEXT.sub(lambda match: rf"\x{{{ord(match[0]):X}}}", text)
            return b" ORCPT=utf-8;" + embedded.encode("ascii")
    except (BadAddress, UnicodeDecodeError):
        return b""
    return b" ORCPT=rfc822;" + _NOT_XTEXT.sub(lambda match: b"+%02X" % match[0][0], path)
