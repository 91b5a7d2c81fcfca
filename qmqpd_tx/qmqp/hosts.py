"""
/etc/hosts, read backwards: the name of an address without asking the DNS.

Takes a file of the form of hosts(5); gives the first name of an address, and whether an address is among
those of a name. Looks at the file's time and size at most every few seconds and reads it again when they
changed. A missing or unreadable file is an empty one, a line that makes no sense is skipped: nothing is
raised. C{twisted.names} reads the same file, but only forwards. Answers to nsswitch's C{files} source, as
getnameinfo(3) uses it for Postfix's daemons.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from twisted.internet.interfaces import IReactorTime

SYSTEM_HOSTS = Path("/etc/hosts")


def _canonical(address: str) -> str | None:
    """
    @return: the one spelling of an address that is compared, or L{None} if it is none.
    """
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None


class HostsFile:
    """The names in one hosts file."""

    def __init__(
        self,
        clock: IReactorTime,
        path: Path | None = SYSTEM_HOSTS,
        text: str = "",
        check_interval: float = 5.0,
    ) -> None:
        """
        @param clock: the time, for C{check_interval}.
        @param path: the file, or L{None} to use only C{text}.
        @param text: what to hold when there is no file.
        @param check_interval: how many seconds to trust what was read without looking at the file.
        """
        self._clock = clock
        self._path = path
        self._check_interval = check_interval
        self._next_check = float("-inf")
        self._stamp: tuple[int, int] | None = None
        self._names: dict[str, str] = {}
        self._addresses: dict[str, set[str]] = {}
        self._parse(text)

    def name(self, address: str) -> str | None:
        """
        @return: the first name of the first line with this address, or L{None}.
        """
        self._refresh()
        key = _canonical(address)
        return None if key is None else self._names.get(key)

    def has(self, name: str, address: str) -> bool:
        """
        @return: whether the file gives this address to this name.
        """
        self._refresh()
        return _canonical(address) in self._addresses.get(name.lower(), ())

    def _refresh(self) -> None:
        now = self._clock.seconds()
        if self._path is None or now < self._next_check:
            return
        self._next_check = now + self._check_interval
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            self._stamp = None
            self._parse("")
            return
        self._stamp = stamp
        self._parse(text)

    def _parse(self, text: str) -> None:
        self._names = {}
        self._addresses = {}
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            if len(words) < 2:
                continue
            address = _canonical(words[0])
            if address is None:
                continue
            self._names.setdefault(address, words[1])
            for name in words[1:]:
                self._addresses.setdefault(name.lower(), set()).add(address)
