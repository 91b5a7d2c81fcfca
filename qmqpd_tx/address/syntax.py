"""
The parts of an address: local part and domain, quotes, extensions, and what is valid.

Takes and gives L{bytes}. The I{internal} form, which the queue file and QMQP carry, has no quotes: the
domain is what follows the last C{@}, and the local part may be any bytes. The I{external} form (SMTP
commands, headers, the log, table keys) quotes a local part that needs it (RFC 5321 section 4.1.2,
RFC 5322 section 3.4.1). Pure; nothing here raises. Answers to Postfix's quote_822_local,
valid_hostname and split_addr, as watched.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

_DOT_STRING = re.compile(
    rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+)*"
)
_SOURCE_ROUTE = re.compile(rb'@(?:\[[^]"]*\]|[^:"[])*:(?!\Z)')
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_LABELS = re.compile(
    rb"(?!-)[A-Za-z0-9_\x80-\xff-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_\x80-\xff-]{1,63}(?<!-))*"
)
_NUMERIC = re.compile(rb"[0-9.]+")
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")

MAXIMAL_HOSTNAME = 255
"""Bytes in a host name (RFC 1035 section 2.3.4)."""


def split_address(address: bytes) -> tuple[bytes, bytes | None]:
    """
    @param address: in internal form.
    @return: local part and domain, split at the last C{@}; the domain is L{None} when there is no C{@}.
    """
    local, at, domain = address.rpartition(b"@")
    return (local, domain) if at else (address, None)


def strip_source_route(address: bytes) -> bytes:
    """
    @return: the address without C{@site,@site:} (RFC 5321 appendix C).
    """
    if address.startswith(b"@") and (route := _SOURCE_ROUTE.match(address)):
        return address[route.end() :]
    return address


def quote_local_part(local: bytes) -> bytes:
    """
    @return: the local part in external form: in quotes unless it is a dot-string.
    """
    if _DOT_STRING.fullmatch(local):
        return local
    return b'"' + local.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def unquote_local_part(local: bytes) -> bytes:
    """
    @param local: in external form.
    @return: in internal form.
    """
    if len(local) >= 2 and local.startswith(b'"') and local.endswith(b'"'):
        local = local[1:-1]
    return _ESCAPED.sub(rb"\1", local) if b"\\" in local else local


def quote_address(address: bytes) -> bytes:
    """
    @param address: in internal form; the null address stays as it is.
    @return: in external form.
    """
    local, at, domain = address.rpartition(b"@")
    if at:
        return address if _DOT_STRING.fullmatch(local) else quote_local_part(local) + b"@" + domain
    return quote_local_part(address) if address else address


def needs_quotes(local: bytes) -> bool:
    """
    @return: whether the external form of a local part has quotes.
    """
    return _DOT_STRING.fullmatch(local) is None


def split_extension(local: bytes, delimiters: bytes, special: bool = True) -> tuple[bytes, bytes | None]:
    """
    @param delimiters: the characters of C{recipient_delimiter}.
    @param special: C{owner_request_special}: whether C{owner-list} and C{list-request} are not split when the
        delimiter is C{-}.
    @return: the local part without its extension, and the extension; L{None} when there is none. The
        names that the mail system itself uses are never split.
    """
    if not delimiters:
        return local, None
    folded = local.lower()
    if folded in (b"mailer-daemon", b"double-bounce"):
        return local, None
    for index in range(1, len(local)):
        if local[index] in delimiters:
            if (
                special
                and local[index] == 0x2D
                and (folded.startswith(b"owner-") or folded.endswith(b"-request"))
            ):
                return local, None
            return local[:index], local[index + 1 :]
    return local, None


def valid_hostname(name: bytes) -> bool:
    """
    @return: whether this can be a host name: labels of letters, digits, C{-}, C{_} and UTF-8, not
        numeric as a whole, at most 255 bytes.
    """
    if len(name) > MAXIMAL_HOSTNAME or not _LABELS.fullmatch(name) or _NUMERIC.fullmatch(name):
        return False
    return name.isascii() or _is_utf8(name)


def literal_address(domain: bytes) -> IPv4Address | IPv6Address | None:
    """
    @param domain: C{[192.0.2.1]} or C{[IPv6:2001:db8::1]}.
    @return: the address, or L{None} when this is no valid address literal. An IPv4 address that is written as
        an IPv6 address is the IPv4 address.
    """
    if not (domain.startswith(b"[") and domain.endswith(b"]") and domain.isascii()):
        return None
    text = domain[1:-1].decode("ascii")
    try:
        if text[:5].lower() == "ipv6:":
            address = IPv6Address(text[5:])
            # A zone means nothing to another host, and C{::} is no shorter than one group at either end.
            if "%" in text or text.count(":", 5) > (6 if "." in text else 7):
                return None
            return address.ipv4_mapped or address
        legacy = IPv4Address(text)
        return None if text.startswith("0.") and int(legacy) else legacy
    except ValueError:
        return None


def valid_literal(domain: bytes) -> bool:
    """
    @return: whether this is an address literal (RFC 5321 section 4.1.3).
    """
    return literal_address(domain) is not None


def numeric_domain(domain: bytes) -> bool:
    """
    @return: whether this is an IP address without brackets.
    """
    try:
        ip_address(domain.decode("ascii"))
    except ValueError:
        return False
    return True


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def valid_address(address: bytes, maximal_length: int = 2048) -> bool:
    """
    Say whether mail could be routed by this address at all: what makes Postfix bounce it with
    C{5.1.3 bad address syntax} when not; for what is beyond ASCII see also
    L{bad_encoding<qmqpd_tx.address.smtputf8.bad_encoding>}.

    @param address: in internal form, with a domain.
    @param maximal_length: bytes (C{line_length_limit}).
    """
    domain = split_address(address)[1]
    if domain is None or len(address) > maximal_length or _CONTROLS.search(address):
        return False
    return valid_hostname(domain) or valid_literal(domain)


def fold_address(address: bytes) -> bytes:
    """
    @return: the address in lower case, as far as it is UTF-8: two addresses that fold alike are the same
        to maps and to the duplicate filter.
    """
    if address.isascii():
        return address.lower()
    try:
        return address.decode("utf-8").casefold().encode("utf-8")
    except UnicodeDecodeError:
        return address.lower()
