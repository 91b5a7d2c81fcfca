"""
Networks: what they look like in tables and lists, and a set of them that is fast.

Takes text, gives L{ipaddress} networks; takes networks with numbers, says which of those that hold an address
has the lowest number, in as many steps as there are lengths of prefixes. Pure. Fails with L{NetworkError}, in
Postfix's words. Answers to Postfix's cidr_table(5) and its lists of networks.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from attrs import frozen

Address = IPv4Address | IPv6Address

LONGEST_ADDRESS = 45
"""No text of an address is longer."""


class NetworkError(Exception):
    """A network that makes no sense; the text says why."""


@frozen(slots=True)
class Network:
    """
    A network, without the checks that make L{ipaddress}'s slow to make.

    @ivar version: 4 or 6.
    @ivar prefix: the bits that all its addresses begin with.
    @ivar shift: how many other bits they have.
    """

    version: int
    prefix: int
    shift: int

    def holds(self, address: Address) -> bool:
        """
        @return: whether the address is in it.
        """
        return address.version == self.version and int(address) >> self.shift == self.prefix


class HostBits(Exception):
    """
    A network whose address is not its first one.

    @ivar first: the first address.
    """

    def __init__(self, first: Address) -> None:
        super().__init__(str(first))
        self.first = first


def network_of(address: Address, length: int) -> Network:
    """
    @param length: of the prefix, in bits.
    @raise HostBits: the address is not the first one.
    """
    shift = address.max_prefixlen - length
    prefix = int(address) >> shift
    if prefix << shift != int(address):
        raise HostBits(ip_network((address, length), strict=False).network_address)
    return Network(address.version, prefix, shift)


def read_network(pattern: str) -> Network:
    """
    @param pattern: C{192.0.2.1}, C{192.0.2.0/24}, C{2001:db8::/32}; all or the address within C{[ ]}.
    @raise NetworkError: it is not one.
    """
    text = pattern
    if text.startswith("["):
        inside, bracket, after = text[1:].partition("]")
        if not bracket:
            raise NetworkError(f"missing ']' character after \"{pattern}\"")
        if after and not after.startswith("/"):
            raise NetworkError(f'garbage after "[{inside}]"')
        text = inside + after
    base, slash, mask = text.partition("/")
    if slash and not (mask.isascii() and mask.isdigit()):
        raise NetworkError(f'bad mask value in "{text}"')
    try:
        if "%" in base:
            raise ValueError(base)
        address = ip_address(base)
    except ValueError:
        kind = f'bad network value in "{text}"' if slash else f'bad address pattern: "{text}"'
        raise NetworkError(f"{kind}; write it as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32") from None
    length = int(mask[:9]) if slash else address.max_prefixlen
    if length > address.max_prefixlen:
        raise NetworkError(f'bad mask length in "{text}"; it is at most {address.max_prefixlen}')
    try:
        return network_of(address, length)
    except HostBits as bits:
        first = str(bits.first)
        shown = text.replace(base, first, 1)
        if pattern.startswith("["):
            shown = f"[{shown}]" if pattern.endswith("]") else f"[{first}]/{mask}"
        raise NetworkError(
            f'non-null host address bits in "{pattern}", perhaps you should use "{shown}" instead'
        ) from None


def read_address(text: str) -> Address | None:
    """
    @return: the address, or L{None} when the text is none.
    """
    # Whatever is looked up comes here: what is too long for an address is not to be remembered.
    return _read_address(text) if len(text) <= LONGEST_ADDRESS else None


@lru_cache(maxsize=4096)
def _read_address(text: str) -> Address | None:
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None


class Networks:
    """
    Numbered networks.
    """

    __slots__ = ("_lengths",)

    def __init__(self) -> None:
        # By version of the protocol, and by how many bits do not matter: the numbers by prefix.
        self._lengths: dict[int, dict[int, dict[int, int]]] = {4: {}, 6: {}}

    def add(self, network: Network, number: int) -> None:
        """
        @param number: the first one given for a network stays.
        """
        self._lengths[network.version].setdefault(network.shift, {}).setdefault(network.prefix, number)

    def first(self, address: Address) -> int | None:
        """
        @return: the lowest number of a network that holds the address.
        """
        value = int(address)
        found: int | None = None
        for shift, same in self._lengths[address.version].items():
            number = same.get(value >> shift)
            if number is not None and (found is None or number < found):
                found = number
        return found
