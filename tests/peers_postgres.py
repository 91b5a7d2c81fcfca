"""
A real PostgreSQL for tests: an instance of its own on loopback, in a scratch folder, stopped by its pid.

PostgreSQL refuses to run as root, so that under root it runs as the user that Debian's package has made. Its
programs look that user up: where only root may read the list of users, they are given one of their own by
libnss_wrapper.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from signal import SIGINT

from tests.peers import START_SECONDS, Instance, Peer, free_port, scratch, unavailable

USER = "mail"
"""The database's administrator."""


class PrivatePostgres(Instance):
    """
    Use it as a context manager.

    @ivar folder: where its socket is.
    @ivar port: on 127.0.0.1; also in the name of the socket.
    """

    def __init__(self) -> None:
        """
        @raise SkipTest: PostgreSQL is not installed.
        """
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            raise unavailable("initdb is not installed (Debian package: postgresql)")
        self._programs = found[-1].parent
        self.folder = scratch()
        self.port = free_port()
        self._process: Peer | None = None
        self._environment: Mapping[str, str] = {**os.environ, "LC_ALL": "C.UTF-8"}
        self._user: list[str] = []
        if os.geteuid() == 0:
            try:
                owner = pwd.getpwnam("postgres")
            except KeyError:
                raise unavailable("there is no user postgres (Debian package: postgresql)") from None
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._user = ["setpriv", "--reuid=postgres", f"--regid={owner.pw_gid}", "--clear-groups"]
            if not os.stat("/etc/passwd").st_mode & 0o004:
                self._wrap(owner)

    def _wrap(self, owner: pwd.struct_passwd) -> None:
        libraries = sorted(Path("/usr/lib").glob("*/libnss_wrapper.so"))
        if not libraries:
            raise unavailable("libnss_wrapper.so is not installed (Debian package: libnss-wrapper)")
        users, groups = self.folder / "passwd", self.folder / "group"
        users.write_text(f"postgres:x:{owner.pw_uid}:{owner.pw_gid}::{self.folder}:/bin/sh\n")
        groups.write_text(f"postgres:x:{owner.pw_gid}:\n")
        self._user = [
            *self._user,
            "env",
            f"LD_PRELOAD={libraries[0]}",
            f"NSS_WRAPPER_PASSWD={users}",
            f"NSS_WRAPPER_GROUP={groups}",
        ]

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [*self._user, str(self._programs / program), *arguments]

    def start(self) -> None:
        """Make the database, and wait until it answers."""
        data = str(self.folder / "data")
        subprocess.run(
            self._command("initdb", "-D", data, "-A", "trust", "-U", USER, "-E", "UTF8", "--no-sync"),
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            check=True,
            timeout=60,
        )
        self.run()

    def run(self) -> None:
        """Start it, with the data that it has."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = self._command("postgres", "-D", str(self.folder / "data"), *arguments)
        self._process = Peer(command, self.port, self.folder)
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(ready, env=dict(self._environment), timeout=60).returncode:
            if time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL is not ready: {self._process.output()[-500:]!r}")
            time.sleep(0.05)

    def halt(self) -> None:
        """Stop it."""
        if self._process is not None:
            # SIGTERM would wait for its clients.
            self._process.process.send_signal(SIGINT)
            self._process.stop()
            self._process = None

    def execute(self, statements: str) -> None:
        """
        Run statements as the administrator.
        """
        subprocess.run(
            [
                *(str(self._programs / "psql"), "-q", "-h", "127.0.0.1", "-p", str(self.port)),
                *("-U", USER, "-v", "ON_ERROR_STOP=1", "postgres"),
            ],
            input=statements.encode(),
            env=dict(self._environment),
            capture_output=True,
            check=True,
            timeout=60,
        )

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)
