"""What the tests of the spool share: a configuration of a few values, and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zope.interface import implementer

from qmqpd_tx.interfaces import IConfig
from qmqpd_tx.message import ClientInfo, Envelope

NOW = 1_700_000_000.0

ENVELOPE = Envelope(
    sender=b"joe@example.org",
    arrival_time=NOW,
    client=ClientInfo("127.0.0.1", "localhost", 4321, "QMQP"),
    message_id=b"<1@example.org>",
    eight_bit=True,
    verp_delimiters=b"+=",
    attributes={"log_ident": b"abc"},
)

TOP = b"Received: by us\n"


@implementer(IConfig)
class Values:
    """The values that the spool reads."""

    def __init__(self, directory: str, **values: object) -> None:
        self._values: dict[str, Any] = {
            "queue_directory": directory,
            "hash_queue_names": ("deferred", "defer"),
            "hash_queue_depth": 1,
            "queue_minfree": 0,
            "queue_commit_sync": "fsync",
            "queue_commit_threads": 2,
            "queue_disk_process": False,
            "queue_spare_files": 0,
            "qmgr_message_memory_limit": 1_000_000,
            **values,
        }

    def _value(self, name: str) -> Any:
        return self._values[name]

    def string(self, name: str) -> str:
        """See L{IConfig.string}."""
        value = self._value(name)
        assert isinstance(value, str)
        return value

    def integer(self, name: str) -> int:
        """See L{IConfig.integer}."""
        value = self._value(name)
        assert isinstance(value, int)
        return value

    def boolean(self, name: str) -> bool:
        """See L{IConfig.boolean}."""
        value = self._value(name)
        assert isinstance(value, bool)
        return value

    def seconds(self, name: str) -> float:
        """See L{IConfig.seconds}."""
        value = self._value(name)
        assert isinstance(value, float)
        return value

    def words(self, name: str) -> Sequence[str]:
        """See L{IConfig.words}."""
        value = self._value(name)
        assert isinstance(value, tuple)
        return value

    def transport_integer(self, transport: str, suffix: str) -> int:
        """See L{IConfig.transport_integer}."""
        return self.integer(f"{transport}_{suffix}")

    def transport_seconds(self, transport: str, suffix: str) -> float:
        """See L{IConfig.transport_seconds}."""
        return self.seconds(f"{transport}_{suffix}")

    def transport_string(self, transport: str, suffix: str) -> str:
        """See L{IConfig.transport_string}."""
        return self.string(f"{transport}_{suffix}")

    def with_overrides(self, overrides: Mapping[str, str]) -> Values:
        """See L{IConfig.with_overrides}."""
        return Values(self._values["queue_directory"], **{**self._values, **overrides})
