"""
What defaults depend on the host: its name, the process.

Answers to: the "see 'postconf -d' output" defaults of postconf(5).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import cache
from importlib import metadata

from attrs import frozen


@frozen(slots=True)
class Host:
    """
    Facts about this host and process.

    @ivar name: the default of C{myhostname}.
    @ivar process_name: C{$process_name}.
    @ivar process_id: C{$process_id}.
    """

    name: str
    process_name: str = "qmqpd_tx"
    process_id: int = 0

    @classmethod
    def here(cls) -> Host:
        """
        @return: the host and process that this code runs in.
        """
        name = socket.gethostname() or "localhost"
        return cls(name=name if "." in name else f"{name}.localdomain", process_id=os.getpid())

    def fact(self, name: str, directory: str, hostname: Callable[[], str]) -> str | None:
        """
        @param name: a parameter name.
        @param directory: the folder of main.cf.
        @param hostname: gives the value of C{myhostname}.
        @return: its default on this host, or L{None} when that does not depend on the host.
        """
        match name:
            case "myhostname":
                return self.name
            case "mydomain":
                return hostname().partition(".")[2] or "localdomain"
            case "mail_version":
                return _version()
            case "process_name":
                return self.process_name
            case "process_id":
                return str(self.process_id)
            case "config_directory":
                return directory
            case _:
                return None


@cache
def _version() -> str:
    """The version of this program, or 0 when it runs without being installed."""
    try:
        return metadata.version("qmqpd_tx")
    except metadata.PackageNotFoundError:
        return "0"
