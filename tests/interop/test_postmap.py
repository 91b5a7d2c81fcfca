"""
Side by side with Postfix: what its C{postmap} answers, lists and builds, C{qmqpd-tx postmap} does too, and
each reads what the other has built.
"""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.admin.main import run as run_command
from tests.libraries import missing
from tests.peers import require, scratch
from tests.peers_postgres import PrivatePostgres

skip = missing("berkeleydb")


TEXT = b"""\
# a comment
foo   bar
FOO second
"key with space"\tv1
"q\\"uo" v2
"A b"@X.test  v3
noval
cont one
  two
# between
k:   v
"unbalanced v
user@dom.example  plain   value  with   "quotes"
\xc3\x89a@x.test  v4
STRASSE v5
stra\xc3\x9fe v6
bad\xff v7
back\\slash v8
crlf v9\r
nul\0led v10
"" v11
last line"""

KEYS = (
    *("foo", "FOO", "FoO", "fo", "nokey", '"key with space"', "key with space", '"KEY with space"'),
    *('"q\\"uo"', 'q"uo', '"a b"@x.test', '"A b"@X.test', "a b@x.test", "noval", "cont", "k:", "k"),
    *('"unbalanced', "user@dom.example", "USER@dom.EXAMPLE", "user", "\u00e9a@x.test", "\u00c9A@x.test"),
    *("strasse", "stra\u00dfe", "STRASSE", "back\\slash", "crlf", "nul", '""', "last", "", " ", "foo ", "@"),
)

SQL = """\
create table t (k text, v text, w text);
insert into t values
 ('foo', 'bar', null), ('multi', 'a', 'x'), ('multi', 'b', 'y'), ('empty', '', null),
 ('user@dom.example', 'User@Res.test', 'z'), ('user', 'local', 'z'), ('dom.example', 'D', 'z'),
 ('o''brien@x.test', 'quoted', 'z'), ('back\\slash', 'bs', 'z'), ('at', '@dom', 'z'), ('bare', 'noat', 'z'),
 ('\u00e9a', 'e', 'z');
"""

Q = "query = select v from t where k='%s' order by v\n"
USER = "user@dom.example"

QUERIES: Sequence[tuple[str, str]] = (
    *((Q, key) for key in ("foo", "FOO", "multi", "empty", "zz", "", "@", "o'brien@x.test", "back\\slash")),
    *((Q, key) for key in ("x' or '1'='1", "'", "''", "\\'", "foo';--", "\u00c9A", "foo ", "%s", "%")),
    (Q + "result_format = smtp:[%s]\n", "multi"),
    (Q + "result_format = %u|%d\n", USER),
    (Q + "result_format = %u\n", "at"),
    (Q + "result_format = %d\n", "at"),
    (Q + "result_format = %d\n", "bare"),
    (Q + "result_format = %u\n", "bare"),
    (Q + "result_format = %S %U %D %1 %2 %%\n", USER),
    (Q + "result_format = %S %U %3\n", USER),
    (Q + "result_format = %D\n", "foo"),
    (Q + "result_format = fixed\n", "multi"),
    (Q + "result_format = fixed\n", "empty"),
    (Q + "result_format = x%\n", "foo"),
    (Q + "result_format = %q\n", "foo"),
    (Q + "result_format =\n", "foo"),
    (Q + "result_format = $myhostname %s\n", "foo"),
    *(("query = select v from t where k='%u'\n", key) for key in (USER, "user", "@dom.example", "USER@x")),
    *(("query = select v from t where k='%d'\n", key) for key in (USER, "user", "@dom.example", "user@")),
    *(("query = select v from t where k='%2.%1'\n", key) for key in (USER, "u@a.dom.example", "dom.example")),
    *(("query = select v from t where k='%2.%1'\n", key) for key in ("u@dom..example", "u@example", "u@.")),
    ("query = select '%3%1'\n", USER),
    ("query = select '%9'\n", "u@a.b.c.d.e.f.g.h.i"),
    ("query = select '%10'\n", "u@a.b.c"),
    ("query = select '%0'\n", "u@a.b.c"),
    ("query = select '%S|%U|%D'\n", USER),
    ("query = select 'a%%b%s'\n", "foo"),
    ("query = select 'a%qb'\n", "foo"),
    ("query = select 'no key'\n", "foo"),
    ("query = select '%u'||'-'||'%d'\n", '"a@b"@dom.example'),
    ("query = select '%u'||'-'||'%d'\n", "a@b@c"),
    ("query = select '%1%2'\n", "u@[192.0.2.1]"),
    ("query = select '%s'\n", " "),
    ("query = select '[%u]'\n", "@d"),
    ("query = select 42\n", "foo"),
    ("query = select 'x' union all select '' union all select 'z'\n", "foo"),
    ("query = select ''\n", "foo"),
    (Q + "domain = dom.example\n", USER),
    (Q + "domain = DOM.example\n", USER),
    (Q + "domain = other.example\n", USER),
    (Q + "domain = dom.example\n", "foo"),
    (Q + "domain = dom.example\n", "@dom.example"),
    (Q + "domain = example, .example\n", USER),
    (Q + "domain = inline:{dom.example=x}\n", USER),
    (Q + "domain = !dom.example static:all\n", USER),
    (Q + "expansion_limit = 1\n", "multi"),
    (Q + "expansion_limit = 2\n", "multi"),
    (Q + "expansion_limit = x\n", "multi"),
    *((Q + f"expansion_limit = {limit}\n", "multi") for limit in ("-1", "+2", "-1x", "-99999999999")),
    *(("query = select '%s'\ndomain = static:x\n", key) for key in ("user@", "@", "@x", "user")),
    ("table = t\nselect_field = v\nwhere_field = k\n", "foo"),
    ("table = t\nselect_field = v\nwhere_field = k\nadditional_conditions = and w='x'\n", "multi"),
    ("table = t\n", "foo"),
    ("query = select nonsense\n", "foo"),
    ("query = selct\n", "foo"),
    ("query = \n", "foo"),
    ("", "foo"),
    ("query select\n", "foo"),
    ("# c\n\nquery = select v\n   from t\n# mid\n   where k='%s'\n", "foo"),
    (Q + "unknown = 1\n", "foo"),
)
"""Configurations without the place of the database, and keys."""

PGSQL: Sequence[tuple[str, str]] = (
    ("query = select v, w from t where k='%s' order by v\n", "multi"),
    ("query = select v, w from t where k='%s'\n", "foo"),
    ("select_function = upper\n", "foo"),
    ("query = select true\n", "foo"),
    ("dbname = nodb\n" + Q, "foo"),
    ("user = nobodyhere\n" + Q, "foo"),
    ("dbname =\n" + Q, "foo"),
)


@frozen(slots=True)
class Done:
    """
    What a command did.

    @ivar output: standard output.
    @ivar warnings: how many lines of warnings there were.
    """

    status: int
    output: bytes
    warnings: int


class Case(SynchronousTestCase):
    """A folder with a main.cf for each of the two."""

    def setUp(self) -> None:
        self.postmap = require("postmap")
        self.folder = scratch()
        self.addCleanup(shutil.rmtree, self.folder)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        self.ours = self.folder / "ours"
        self.theirs = self.folder / "theirs"
        for folder in (self.ours, self.theirs):
            folder.mkdir()
        settings = "compatibility_level = 3.6\nmyhostname = mx.example.org\n"
        (self.ours / "main.cf").write_text(settings)
        (self.theirs / "main.cf").write_text(settings + f"maillog_file_prefixes = {self.folder}\n")
        (self.theirs / "master.cf").write_text("")
        for name in ("dynamicmaps.cf", "dynamicmaps.cf.d"):
            if (Path("/etc/postfix") / name).exists():
                (self.theirs / name).symlink_to(Path("/etc/postfix") / name)

    def run_theirs(self, *arguments: str, input: bytes = b"") -> Done:
        """
        Run Postfix's.
        """
        done = subprocess.run(
            [self.postmap, "-c", str(self.theirs), *arguments], input=input, capture_output=True, timeout=60
        )
        return Done(done.returncode, done.stdout, done.stderr.count(b"warning: "))

    def run_ours(self, *arguments: str, input: bytes = b"") -> Done:
        """
        Run ours, in this process.
        """
        old = sys.stdin, sys.stdout, sys.stderr
        output, errors = io.BytesIO(), io.BytesIO()
        streams = io.TextIOWrapper(io.BytesIO(input)), io.TextIOWrapper(output), io.TextIOWrapper(errors)
        sys.stdin, sys.stdout, sys.stderr = streams
        try:
            status = run_command(["-c", str(self.ours), "postmap", *arguments])
        finally:
            sys.stdin, sys.stdout, sys.stderr = old
        for stream in streams[1:]:
            stream.flush()
        return Done(status, output.getvalue(), errors.getvalue().count(b"warning: "))

    def same(self, *arguments: str, input: bytes = b"") -> Done:
        """
        Both do the same.

        @return: what that was.
        """
        theirs = self.run_theirs(*arguments, input=input)
        ours = self.run_ours(*arguments, input=input)
        self.assertEqual((ours.status, ours.output), (theirs.status, theirs.output), arguments)
        return theirs


class IndexedTests(Case):
    """C{hash}, C{btree}, C{lmdb} and C{cdb}."""

    def suffix(self, kind: str) -> str:
        """
        @return: what is added to the name.
        """
        return {"hash": ".db", "btree": ".db"}.get(kind, "." + kind)

    def check(self, kind: str) -> None:
        """
        Files of one kind, made by each and read by each.
        """
        for name in ("a", "b"):
            (self.folder / name).write_bytes(TEXT)
        theirs = self.run_theirs(f"{kind}:a")
        ours = self.run_ours(f"{kind}:b")
        self.assertEqual(ours, theirs)
        self.assertEqual(ours.status, 0)
        keys = "\n".join(KEYS).encode() + b"\nlatin\xe9\n"
        first = self.same("-q", "-", f"{kind}:a", input=keys)
        self.assertEqual(first.output.count(b"\n"), 21)
        self.assertEqual(self.same("-q", "-", f"{kind}:b", input=keys), first)
        self.same("-q", "FoO", f"{kind}:b")
        self.same("-q", "nokey", f"{kind}:b")
        self.same("-n", "-q", "foo", f"{kind}:b")
        self.same("-N", "-q", "foo", f"{kind}:b")
        self.same("-f", "-q", "FOO", f"{kind}:b")
        self.same("-q", "foo", f"{kind}:nofile")
        self.same(f"{kind}:nofile")
        (self.folder / "empty").write_bytes(b"")
        self.run_ours(f"{kind}:empty")
        self.same("-q", "foo", f"{kind}:empty")

    def check_changes(self, kind: str) -> None:
        """
        A file that can be walked and changed.
        """
        (self.folder / "a").write_bytes(TEXT)
        (self.folder / "b").write_bytes(TEXT)
        self.run_theirs(f"{kind}:a")
        self.run_ours(f"{kind}:b")
        listed = [self.run_theirs("-s", f"{kind}:{name}") for name in "ab"]
        self.assertEqual(sorted(listed[0].output.splitlines()), sorted(listed[1].output.splitlines()))
        self.same("-s", f"{kind}:a")
        self.same("-s", f"{kind}:b")
        for arguments, input in (
            (("-i",), b"new v\nFOO other\nnew w\n"),
            (("-r", "-i"), b"foo replaced\nnoval\n"),
            (("-w", "-i"), b"foo ignored\n"),
            (("-d", "FOO"), b""),
            (("-d", "foo"), b""),
            (("-d", "-"), b"k:\nnothing\n\n"),
            (("-d", "-"), b"nothing\n"),
            (("-f", "-i"), b"UPPER case\n"),
            (("-n", "-i"), b"nonull v\n"),
            (("-d", "new"), b""),
        ):
            theirs = self.run_theirs(*arguments, f"{kind}:a", input=input)
            ours = self.run_ours(*arguments, f"{kind}:b", input=input)
            self.assertEqual(ours, theirs, arguments)
            content = [
                sorted(self.run_theirs("-s", f"{kind}:{name}").output.splitlines()) for name in ("a", "b")
            ]
            self.assertEqual(content[0], content[1], arguments)
        self.same("-d", "foo", f"{kind}:nofile")
        self.run_ours("-i", f"{kind}:fresh", input=b"k v\n")
        self.same("-q", "k", f"{kind}:fresh")

    def test_hash(self) -> None:
        """C{hash:}."""
        self.check("hash")

    def test_btree(self) -> None:
        """C{btree:}."""
        self.check("btree")

    def test_lmdb(self) -> None:
        """C{lmdb:}."""
        self.check("lmdb")

    def test_cdb(self) -> None:
        """C{cdb:}."""
        self.check("cdb")
        for arguments in (("-i",), ("-d", "foo"), ("-s",)):
            self.run_ours("cdb:a")
            if arguments != ("-s",):
                self.same(*arguments, "cdb:a")

    def test_change_hash(self) -> None:
        """C{-s}, C{-i} and C{-d} on C{hash:}."""
        self.check_changes("hash")

    def test_change_btree(self) -> None:
        """C{-s}, C{-i} and C{-d} on C{btree:}."""
        self.check_changes("btree")

    def test_change_lmdb(self) -> None:
        """C{-s}, C{-i} and C{-d} on C{lmdb:}."""
        self.check_changes("lmdb")

    def test_options(self) -> None:
        """Options that change what is stored."""
        (self.folder / "one").write_text("content\n")
        (self.folder / "two").write_text("more")
        text = f"k {self.folder}/one, {self.folder}/two\nj {self.folder}/one\nbad /nonexistent\nk x\n"
        for arguments in (("-F",), ("-f",), ("-u",), ("-r",), ("-w",), ("-r", "-w"), ("-N",), ("-n",)):
            for name in ("a", "b"):
                (self.folder / name).write_bytes(text.encode() if arguments == ("-F",) else TEXT)
            theirs = self.run_theirs(*arguments, "btree:a")
            self.assertEqual(self.run_ours(*arguments, "btree:b"), theirs, arguments)
            self.assertEqual(
                self.run_theirs("-s", "btree:b").output, self.run_theirs("-s", "btree:a").output, arguments
            )
            self.same(*arguments, "-s", "btree:a") if arguments == ("-F",) else None
            self.same(*arguments, "-q", "k", "btree:a") if arguments == ("-F",) else None

    def test_permissions(self) -> None:
        """A new file may be read by whom the text may be read by; C{-p} by everybody; an old one stays."""
        for mode, arguments in ((0o640, ()), (0o600, ()), (0o604, ()), (0o755, ()), (0o600, ("-p",))):
            for kind in ("hash", "lmdb", "cdb"):
                found = []
                for name, run in (("a", self.run_theirs), ("b", self.run_ours)):
                    path = self.folder / name
                    path.write_text("x y\n")
                    path.chmod(mode)
                    os.chown(path, -1, 8)
                    index = Path(f"{path}{self.suffix(kind)}")
                    index.unlink(missing_ok=True)
                    run(*arguments, f"{kind}:{name}")
                    status = index.stat()
                    found.append((stat.S_IMODE(status.st_mode), status.st_gid))
                self.assertEqual(found[1], found[0], (oct(mode), kind, arguments))

    def test_owner(self) -> None:
        """Root builds somebody else's table with his rights, unless told otherwise."""
        self.folder.chmod(0o777)
        for arguments in ((), ("-o",)):
            found = []
            for name, run in (("a", self.run_theirs), ("b", self.run_ours)):
                path = self.folder / name
                path.write_text("x y\n")
                os.chown(path, 65534, 65534)
                Path(f"{path}.db").unlink(missing_ok=True)
                run(*arguments, f"hash:{name}")
                found.append(Path(f"{path}.db").stat().st_uid)
            self.assertEqual(found[1], found[0], arguments)
        self.folder.chmod(0o755)
        Path(self.folder / "b.db").unlink()
        self.assertEqual(self.run_ours("hash:b").status, 1)

    def test_usage(self) -> None:
        """What cannot be done ends with the same status."""
        (self.folder / "a").write_bytes(b"foo bar\n")
        self.run_theirs("hash:a")
        self.run_theirs("cdb:a")
        (self.folder / "g.db").write_bytes(b"garbage")
        (self.folder / "g.cdb").write_bytes(b"garbage")
        (self.folder / "g.lmdb").write_bytes(b"garbage")
        for arguments in (
            ("-q", "foo", "a"),
            ("a",),
            ("nosuch:a",),
            ("texthash:a",),
            ("regexp:a",),
            ("-q", "foo", "nosuch:a"),
            ("-q", "foo", "hash:a", "cdb:a"),
            ("-q", "zz", "hash:a", "cdb:a"),
            ("-q", "zz", "hash:a", "texthash:nofile"),
            ("-q", "foo", "hash:a", "texthash:nofile"),
            ("-q", "foo", "fail:x"),
            ("-q", "foo", "hash:"),
            ("-q", "foo", ":a"),
            ("-q", "foo", "-s", "hash:a"),
            ("-q", "foo", "-d", "foo", "hash:a"),
            ("-h", "-q", "foo", "hash:a"),
            ("-q", "foo", "btree:a"),
            ("-q", "foo", "hash:g"),
            ("-q", "foo", "cdb:g"),
            ("-q", "foo", "lmdb:g"),
            ("lmdb:g",),
            ("-d", "foo", "texthash:a"),
            ("-i", "texthash:a"),
            ("-s", "static:x"),
            ("-s", "inline:{a=b}"),
            (),
        ):
            self.same(*arguments)
        self.assertEqual(self.same("-q", "foo", "a").output, b"bar\n")

    def test_messages(self) -> None:
        """C{-h} and C{-b} take keys from a message."""
        (self.folder / "re").write_text("/(.*)/ <$1>\n")
        message = b"From: a@b\nSubject: foo\n more\nX : y\n\npre\n Subject: x\n\nend\n"
        for arguments in (("-h",), ("-b",), ("-hb",), (), ("-b", "-U")):
            self.same(*arguments, "-q", "-", "regexp:re", input=message)
        self.same("-h", "-q", "-", "regexp:re", input=b"no header\nSubject: x\n")


class SqlTests(Case):
    """C{sqlite} and C{pgsql}."""

    def check(self, kind: str, place: str, queries: Sequence[tuple[str, str]]) -> None:
        """
        Each configuration gives the same value and status.
        """
        cases = []
        for number, (text, key) in enumerate(queries):
            given = {line.partition("=")[0].strip() for line in text.splitlines()}
            lines = [line for line in place.splitlines() if line.partition("=")[0].strip() not in given]
            (self.folder / f"x{number}.cf").write_text("\n".join(lines) + "\n" + text)
            cases.append(("-q", key, f"{kind}:./x{number}.cf"))
        # Postfix's takes a second for each error.
        with ThreadPoolExecutor(16) as pool:
            theirs = list(pool.map(lambda case: self.run_theirs(*case), cases))
        wrong = []
        for query, case, expected in zip(queries, cases, theirs, strict=True):
            ours = self.run_ours(*case)
            if (ours.status, ours.output) != (expected.status, expected.output):
                wrong.append((query, ours, expected))
        self.assertEqual(wrong, [])

    def test_sqlite(self) -> None:
        """C{sqlite:}."""
        database = sqlite3.connect(self.folder / "data")
        database.executescript(SQL)
        database.close()
        self.check("sqlite", f"dbpath = {self.folder}/data\n", QUERIES)

    def test_pgsql(self) -> None:
        """C{pgsql:}."""
        with PrivatePostgres() as server:
            server.execute(SQL)
            place = f"hosts = 127.0.0.1:{server.port}\nuser = mail\ndbname = postgres\n"
            # Ours is UTF8 by default; Postfix 3.7 knows no other than this one.
            place += "encoding = LATIN1\n"
            self.check("pgsql", place, (*QUERIES, *PGSQL))
