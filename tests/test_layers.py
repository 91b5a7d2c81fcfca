"""
The layers of the package, kept by a walk through all imports.

Values and contracts import only each other; rooms import those and their own modules, and a few pure
libraries where this table says so; the composition root imports everything and nobody else imports it; there
are no cycles; the global reactor belongs to C{tap} alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

PACKAGE = "qmqpd_tx"
ROOT = Path(__file__).resolve().parent.parent

BASE = frozenset({"eager", "events", "message", "status", "interfaces", "netstring", "wire"})
"""What everybody may import, and what imports nobody else."""

LIBRARIES: Mapping[str, frozenset[str]] = {
    "address": frozenset({"tables"}),
    "bounce": frozenset({"address"}),
    "cleanup": frozenset({"address", "milter", "tables"}),
    "maillog": frozenset({"address.syntax"}),
    "flush": frozenset({"address", "tables", "spool.queueid"}),
    "transports": frozenset({"address"}),
    "admin": frozenset(
        {
            "address",
            "bounce.records",
            "config",
            "maillog",
            "qmqp.client",
            "qmqp.send",
            "spool.inspect",
            "spool.offline",
            "spool.queueid",
            "tables",
        }
    ),
}
"""Which room may use which others: rooms, or single modules of them, that are pure libraries."""

REACTOR = frozenset({"tap"})
"""Who may have the global reactor."""

SIMULATED = frozenset({"config", "maillog", "qmgr", "spool.memory"})
"""What the second composition root wires together; it is imported by nobody but its command."""

COMPOSITION = frozenset({"cleanups", "intake", "mailsystem", "refresh", "resolver", "startup", "tap"})
"""Who wires the rooms together: may import everything, and is imported by nobody else."""


@frozen(slots=True)
class Import:
    """
    One import of one module by another.

    @ivar importer: dotted name, without the package's.
    @ivar imported: as C{importer}, or the full name of something outside of the package.
    @ivar line: where.
    """

    importer: str
    imported: str
    line: int


def imports_of(name: str, source: str, modules: Iterable[str], is_package: bool = False) -> Iterator[Import]:
    """
    @param name: the dotted name of a module in the package, without the package's own.
    @param modules: all modules of the package, likewise.
    @return: its imports, wherever they are in it, but for those that only a type checker sees.
    """
    known = set(modules)

    def local(full: str) -> str:
        return full.removeprefix(PACKAGE).lstrip(".") if full.split(".")[0] == PACKAGE else full

    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, local(alias.name), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = [PACKAGE, *filter(None, name.split("."))]
                up = node.level - 1 if is_package else node.level
                base = ".".join(filter(None, [*parts[: len(parts) - up], base]))
            for alias in node.names:
                # `from room import module` imports the module; `from module import name` the module.
                whole = local(f"{base}.{alias.name}")
                yield Import(name, whole if whole in known else local(base), node.lineno)
                if whole not in known and base == "twisted.internet" and alias.name == "reactor":
                    yield Import(name, "twisted.internet.reactor", node.lineno)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """
    @return: all nodes but those under C{if TYPE_CHECKING}.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from runtime_nodes(node)


def allowed(importer: str, imported: str) -> bool:
    """
    @return: whether one module of the package may import another.
    """
    room, target = importer.split(".")[0], imported.split(".")[0]
    if room in COMPOSITION:
        return True
    if target in COMPOSITION:
        return False
    if target in BASE or imported == "":
        return True
    if room in BASE:
        return False
    if room == target:
        return True
    if target == "simulate":
        return importer == "admin.simulate"
    if room == "simulate":
        return any(imported == one or imported.startswith(one + ".") for one in SIMULATED)
    return any(
        imported == library or imported.startswith(library + ".") for library in LIBRARIES.get(room, ())
    )


def breaches(imports: Iterable[Import], modules: Iterable[str]) -> list[str]:
    """
    @return: what breaks the rules, for people.
    """
    known = {*modules, ""}
    found = []
    for one in imports:
        if one.imported in known:
            if not allowed(one.importer, one.imported):
                found.append(f"{one.importer}:{one.line} imports {one.imported}")
        elif one.imported == "twisted.internet.reactor" and one.importer not in REACTOR:
            found.append(f"{one.importer}:{one.line} imports the global reactor")
    return list(dict.fromkeys(found))


def cycle(imports: Iterable[Import], modules: Iterable[str]) -> list[str]:
    """
    @return: a cycle of imports, or nothing.
    """
    known = set(modules)
    edges: dict[str, set[str]] = {}
    for one in imports:
        if one.imported in known and one.imported != one.importer:
            edges.setdefault(one.importer, set()).add(one.imported)
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges.get(module, ())):
            if found := walk(target, [*path, module]):
                return found
        done.add(module)
        return []

    for module in sorted(edges):
        if found := walk(module, []):
            return found
    return []


def package_modules() -> dict[str, Path]:
    """
    @return: the modules of the package by their dotted name without the package's.
    """
    modules = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def package_imports() -> list[Import]:
    """
    @return: all imports in the package.
    """
    modules = package_modules()
    return [
        one
        for name, path in modules.items()
        for one in imports_of(name, path.read_text("utf-8"), modules, path.name == "__init__.py")
    ]


class PackageTests(SynchronousTestCase):
    """The package as it is."""

    def test_rooms_meet_only_where_the_table_says(self) -> None:
        """No module imports what its layer must not know."""
        self.assertEqual(breaches(package_imports(), package_modules()), [])

    def test_no_cycle(self) -> None:
        """No module imports itself by way of others."""
        self.assertEqual(cycle(package_imports(), package_modules()), [])

    def test_the_walk_sees_the_package(self) -> None:
        """The walk finds imports that are known to be there."""
        pairs = {(one.importer, one.imported) for one in package_imports()}
        self.assertIn(("interfaces", "message"), pairs)
        self.assertIn(("maillog", "maillog.observer"), pairs)

    def test_plugin_imports_nothing_of_ours(self) -> None:
        """twistd reads the plugin of every installed package at each start: it must be cheap and safe."""
        plugin = ROOT / "twisted" / "plugins" / "qmqpd_tx_plugin.py"
        imports = [one.imported for one in imports_of("plugin", plugin.read_text(), [])]
        self.assertEqual(imports, ["twisted.application.service"])
        self.assertFalse(list((ROOT / "twisted").rglob("__init__.py")))


class RuleTests(SynchronousTestCase):
    """The rules find what they are there to find."""

    MODULES = (
        "",
        "message",
        "tap",
        "qmqp",
        "qmqp.parser",
        "qmqp.client",
        "spool",
        "spool.inspect",
        "config",
        "admin",
    )

    def found(self, importer: str, source: str) -> list[str]:
        """
        @return: the breaches in one module.
        """
        return breaches(imports_of(importer, source, self.MODULES), self.MODULES)

    def test_room_imports_room(self) -> None:
        """A room that imports another one is a breach, in whatever way it does."""
        for source in (
            "from qmqpd_tx.spool import inspect",
            "import qmqpd_tx.spool.inspect",
            "from ..spool import inspect",
            "def f():\n    from qmqpd_tx.spool.inspect import x",
        ):
            self.assertEqual(len(self.found("qmqp.parser", source)), 1, source)

    def test_permitted(self) -> None:
        """Own modules, contracts, and what the table grants are fine."""
        self.assertEqual(self.found("qmqp.parser", "from qmqpd_tx.qmqp.client import x"), [])
        self.assertEqual(self.found("qmqp.parser", "from qmqpd_tx.message import x\nimport os"), [])
        self.assertEqual(self.found("admin", "from qmqpd_tx.spool import inspect"), [])
        self.assertEqual(self.found("tap", "import qmqpd_tx.spool, qmqpd_tx.qmqp"), [])
        source = "if TYPE_CHECKING:\n    from qmqpd_tx.spool import inspect"
        self.assertEqual(self.found("qmqp.parser", source), [])

    def test_granted_module_is_not_the_whole_room(self) -> None:
        """A grant for one module of a room is none for the others."""
        self.assertEqual(len(self.found("admin", "from qmqpd_tx.spool import store")), 1)
        self.assertEqual(len(self.found("admin", "from qmqpd_tx.qmqp.parser import x")), 1)

    def test_tap_is_the_end(self) -> None:
        """Nobody imports tap, not even the composition's users."""
        self.assertEqual(len(self.found("admin", "from qmqpd_tx import tap")), 1)

    def test_second_root(self) -> None:
        """The simulator wires what the table says, and belongs to its command alone."""
        self.assertTrue(allowed("simulate.world", "qmgr.service"))
        self.assertFalse(allowed("simulate.world", "transports.registry"))
        self.assertFalse(allowed("simulate.world", "spool.store"))
        self.assertTrue(allowed("admin.simulate", "simulate.world"))
        self.assertFalse(allowed("admin.main", "simulate.world"))
        self.assertFalse(allowed("qmgr.service", "simulate.world"))

    def test_values_import_nobody(self) -> None:
        """A contract that knows a room is a breach."""
        self.assertEqual(len(self.found("message", "from qmqpd_tx.spool import inspect")), 1)

    def test_reactor(self) -> None:
        """Only tap may have the global reactor."""
        self.assertEqual(len(self.found("spool", "from twisted.internet import reactor")), 1)
        self.assertEqual(self.found("tap", "def f():\n    from twisted.internet import reactor"), [])
        self.assertEqual(len(self.found("mailsystem", "from twisted.internet import reactor")), 1)
        self.assertEqual(self.found("spool", "from twisted.internet import defer"), [])

    def test_cycle(self) -> None:
        """A cycle is found and named."""
        imports = [Import("a", "b", 1), Import("b", "c", 1), Import("c", "b", 1)]
        self.assertEqual(cycle(imports, "abc"), ["b", "c", "b"])
        self.assertEqual(cycle(imports[:2], "abc"), [])
