"""
The limits of tables of patterns, in indexed files and on servers.

Takes the texts of parameters, gives numbers. Where there is no configuration (a test, a command without one),
the defaults of L{DEFAULTS}. Pure. Answers to the constants of Postfix's tcp_table(5), socketmap_table(5) and
pgsql_table(5), and to its C{berkeley_db_*} and C{lmdb_map_size} parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from qmqpd_tx.interfaces import ConfigError

DEFAULTS: Mapping[str, str] = {
    "berkeley_db_create_buffer_size": "16777216",
    "berkeley_db_read_buffer_size": "131072",
    "lmdb_map_size": "16777216",
    "pattern_match_limit": "1000000",
    "pattern_time_limit": "1s",
    "socketmap_reply_size_limit": "100000",
    "table_close_delay": "300s",
    "table_connection_limit": "5",
    "table_idle_time": "60s",
    "table_lock_timeout": "5s",
    "table_queue_limit": "1000",
    "table_request_timeout": "100s",
    "table_retry_delay": "60s",
    "tcp_table_reply_size_limit": "4096",
}
"""What the parameters are where nobody has set them."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def integer(setting: Callable[[str], str], name: str) -> int:
    """
    @param setting: gives the text of a parameter.
    @return: the value of a size or a count.
    """
    try:
        return int(setting(name))
    except ConfigError:
        return int(DEFAULTS[name])


def seconds(setting: Callable[[str], str], name: str) -> float:
    """
    @param setting: gives the text of a parameter.
    @return: the value of a time, in seconds.
    """
    try:
        text = setting(name)
    except ConfigError:
        text = DEFAULTS[name]
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    return float(number) * _UNITS[unit]


@frozen(slots=True)
class ServerLimits:
    """
    What a table on a server may take.

    @ivar connections: how many it may have at a time, and so how many lookups are under way.
    @ivar queue: how many more may wait.
    @ivar timeout: seconds that a lookup may take, waiting included.
    @ivar idle: seconds after which an unused connection is closed.
    @ivar retry: seconds for which a server that failed is left alone, if there are others.
    """

    connections: int
    queue: int
    timeout: float
    idle: float
    retry: float

    @classmethod
    def of(cls, setting: Callable[[str], str]) -> ServerLimits:
        """
        @param setting: gives the text of a parameter.
        @return: those of the configuration.
        """
        return cls(
            connections=integer(setting, "table_connection_limit"),
            queue=integer(setting, "table_queue_limit"),
            timeout=seconds(setting, "table_request_timeout"),
            idle=seconds(setting, "table_idle_time"),
            retry=seconds(setting, "table_retry_delay"),
        )
