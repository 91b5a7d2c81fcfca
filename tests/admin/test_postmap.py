"""
C{qmqpd-tx postmap}: what it refuses, and tables that only a server has. What it does like Postfix's is
compared in the interop tests.
"""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import sys
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.admin.main import run
from tests.libraries import missing

skip = missing("berkeleydb")


class PostmapTests(SynchronousTestCase):
    """The command, in this process."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "main.cf").write_text("default_database_type = cdb\n")

    def postmap(self, *arguments: str) -> tuple[int, str, str]:
        """
        @return: exit status, standard output and standard error.
        """
        output, errors = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = run(["-c", str(self.folder), "postmap", *arguments])
        texts = []
        for stream in (output, errors):
            stream.seek(0)
            texts.append(stream.read())
        return status, texts[0], texts[1]

    def test_build_and_query(self) -> None:
        """The default type is the configuration's; duplicates and odd lines are named in warnings."""
        path = self.folder / "t"
        path.write_text("foo bar\nFOO other\nnothing\n")
        status, output, errors = self.postmap(str(path))
        self.assertEqual((status, output), (0, ""))
        self.assertIn(f'postmap: warning: {path}: duplicate entry: "foo"', errors)
        self.assertIn(f"postmap: warning: {path}, line 3: expected format: key whitespace value", errors)
        self.assertTrue((self.folder / "t.cdb").exists())
        self.assertEqual(self.postmap("-q", "Foo", str(path)), (0, "bar\n", ""))
        self.assertEqual(self.postmap("-q", "nothing", str(path)), (1, "", ""))
        self.assertEqual(self.postmap("-s", str(path)), (0, "foo\tbar\n", ""))

    def test_quotes(self) -> None:
        """A backslash takes the meaning of what follows, whatever comes later; in time linear in the line."""
        path = self.folder / "t"
        path.write_text('a\\"b c\nd\\"e" f\n' + "\\" * 100 + 'g"h"i"j k\nl\\ m n\n')
        status, _, errors = self.postmap(str(path))
        self.assertEqual(status, 0)
        self.assertIn(f"{path}, line 2: unbalanced", errors)
        self.assertIn(f"{path}, line 3: unbalanced", errors)
        self.assertEqual(self.postmap("-s", str(path)), (0, 'a\\"b\tc\nl\\ m\tn\n', ""))

    def test_inline_patterns(self) -> None:
        """Rules on the command line are no name of a file, which may be relative."""
        for table, key in (
            ("regexp:{{/a/ x}}", "a"),
            ("pcre:{ {/a/ x} }", "a"),
            ("cidr:{{1.2.3.4 x}}", "1.2.3.4"),
            ("proxy:regexp:{{/a/ x}}", "a"),
        ):
            self.assertEqual(self.postmap("-q", key, table), (0, "x\n", ""))

    def test_not_utf8(self) -> None:
        """Lines that are not UTF-8 are left out, unless C{-u} or the configuration says otherwise."""
        path = self.folder / "t"
        path.write_bytes(b"foo caf\xe9\n")
        query = ("-q", "foo", f"texthash:{path}")
        (self.folder / "main.cf").write_text("smtputf8_enable = yes\n")
        warning = f'postmap: warning: {path}, line 1: non-UTF-8 input "foo caf?" -- ignoring this line\n'
        self.assertEqual(self.postmap(*query), (1, "", warning))
        output = self.folder / "output"
        for arguments in (("-u",), ()):
            with output.open("w+") as stream, contextlib.redirect_stdout(stream):
                self.assertEqual(run(["-c", str(self.folder), "postmap", *arguments, *query]), 0)
            self.assertEqual(output.read_bytes(), b"caf\xe9\n")
            (self.folder / "main.cf").write_text("smtputf8_enable = no\n")

    def test_failed_build(self) -> None:
        """A build that fails leaves the old file."""
        path = self.folder / "t"
        path.write_text("foo bar\n")
        self.postmap(f"cdb:{path}")
        path.unlink()
        status, _, errors = self.postmap(f"cdb:{path}")
        self.assertEqual((status, errors), (1, f"postmap: fatal: open {path}: No such file or directory\n"))
        self.assertEqual(self.postmap("-q", "foo", f"cdb:{path}"), (0, "bar\n", ""))

    def test_refused(self) -> None:
        """One line that says what is wrong and what to do."""
        for arguments, reason in (
            (("-m", "-q", "-", "static:x"), "-m: MIME is not looked into here; leave -m out"),
            (("-v", "-q", "x", "static:x"), "-v: there is no verbose mode; leave -v out"),
            (("-f", "-q", "x", "inline:{x=y}"), "-f is for hash, btree, lmdb and cdb; leave it out"),
            (("-F", "-q", "x", "inline:{x=y}"), "the value is not base64; leave -F out"),
            (("nosuch:x",), "unsupported dictionary type: nosuch"),
            (("static:x",), "static does not support bulk-mode creation"),
            (("-i", "cdb:x"), "leave -i and -d out"),
            (("-q", "x", f"cdb:{self.folder}/none"), "none.cdb: No such file or directory; make it with"),
            ((), "usage: postmap"),
        ):
            status, output, errors = self.postmap(*arguments)
            self.assertEqual((status, output), (1, ""), arguments)
            self.assertIn(reason, errors)
            self.assertEqual(errors.count("\n"), 1, errors)
            self.assertTrue(errors.startswith("postmap: fatal: "), errors)

    def test_server(self) -> None:
        """A table on a server is asked, from the command line."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    while data := connection.recv(1000):
                        connection.sendall(b"200 v\n" if b"good" in data else b"500 no\n")

            thread = threading.Thread(target=serve)
            thread.start()
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "qmqpd_tx.admin.main", "-c", str(self.folder)),
                    *("postmap", "-q", "-", f"tcp:localhost:{port}"),
                ],
                input=b"good\nbad\ngood2\n",
                capture_output=True,
                cwd=Path(__file__).parent.parent.parent,
                timeout=60,
            )
            thread.join(10)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"good\tv\ngood2\tv\n", b""))
