"""
Tables of networks: C{cidr:}.

Takes a file, or C{{ {rule} {rule} }}, with a network and a result on each line; gives a table that finds the
first line whose network holds an address. C{!network} is for all other addresses of the same kind (IPv4 or
IPv6), and C{if network} up to C{endif} likewise. A key that is not an address is not found. Neighbouring
lines are looked up together, so that a list of a hundred thousand networks costs a few steps. A line that
makes no sense is a L{ConfigError} that names it. Answers to Postfix's cidr_table(5).
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from zope.interface import implementer

from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.networks import Address, Network, NetworkError, Networks, read_address, read_network
from qmqpd_tx.tables.rules import Line, Program, Rule, RuleError, RuleText, not_marks, read_rules
from qmqpd_tx.tables.words import decode


@define(slots=True)
class _Run:
    """
    Neighbouring lines.
    """

    networks: Networks
    results: list[bytes]

    def add(self, network: Network, result: bytes) -> None:
        self.networks.add(network, len(self.results))
        self.results.append(result)

    def find(self, address: Address) -> bytes | None:
        number = self.networks.first(address)
        return None if number is None else self.results[number]


def _itself(found: bytes) -> bytes:
    return found


def _holds(network: Network, negated: bool, result: bytes) -> Callable[[Address], bytes | None]:
    def find(address: Address) -> bytes | None:
        if address.version != network.version or network.holds(address) is negated:
            return None
        return result

    return find


@implementer(ILookupTable)
class CidrTable:
    """
    A table of networks.

    @param text: where its rules stand.
    @param context: for messages.
    @raise ConfigError: a rule makes no sense.
    """

    __slots__ = ("_program", "_run", "name", "sources")
    fixed_keys = False
    immediate = True
    stable = True

    def __init__(self, text: RuleText, context: TableContext) -> None:
        self.name = text.name
        self.sources = text.sources
        self._run: _Run | None = None
        self._program: Program[Address] = Program(text, self._understand, context)
        self._run = None

    def _understand(self, line: Line) -> Rule[Address] | None:
        if line.keyword == "endif":
            self._run = None
            return None
        negated, bare = not_marks(line.text)
        if not bare:
            raise RuleError("no address pattern; write a network after it")
        pattern, result = (bare, b"") if line.keyword else [*bare.split(None, 1), b""][:2]
        try:
            network = read_network(decode(pattern))
        except NetworkError as error:
            raise RuleError(str(error)) from None
        if line.keyword:
            self._run = None
            return Rule(line.number, _holds(network, negated, b""), None)
        if not result:
            raise RuleError("no lookup result; write what the rule is to give")
        if negated:
            self._run = None
            return Rule(line.number, _holds(network, True, result), _itself)
        if self._run is not None:
            self._run.add(network, result)
            return None
        self._run = _Run(Networks(), [])
        self._run.add(network, result)
        return Rule(line.number, self._run.find, _itself)

    def lookup(self, key: bytes) -> bytes | None:
        address = read_address(key.decode("latin-1"))
        return None if address is None else self._program.run(address)

    def close(self) -> None:
        """See L{ILookupTable}."""


@implementer(ILookupTableType)
class CidrType:
    """Opens C{cidr:} tables."""

    type = "cidr"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        return CidrTable(read_rules(self.type, name, context), context)
