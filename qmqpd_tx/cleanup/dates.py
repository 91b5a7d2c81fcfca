"""
Times as mail writes them (RFC 5322 section 3.3). Pure but for the default time zone.

Takes POSIX seconds and a time zone as a callable; gives text like C{Sun, 22 Nov 2026 05:00:52 +0000 (UTC)}.
Independent of the locale. A rendered second is remembered, since a busy second holds many messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Timezone = Callable[[float], int]
"""POSIX seconds to seconds east of UTC at that time."""

ZoneName = Callable[[float], str]
"""POSIX seconds to the name of the time zone at that time; empty for none."""


def local_timezone(seconds: float) -> int:
    """
    @return: this machine's offset from UTC at that time, in seconds.
    """
    return time.localtime(seconds).tm_gmtoff


def local_zone_name(seconds: float) -> str:
    """
    @return: the name of this machine's time zone at that time.
    """
    return time.localtime(seconds).tm_zone


class MailDate:
    """Writes dates for one time zone."""

    __slots__ = ("_last", "_text", "_timezone", "_zone_name")

    def __init__(self, timezone: Timezone = local_timezone, zone_name: ZoneName = local_zone_name) -> None:
        """
        @param timezone: the offset from UTC.
        @param zone_name: what stands in parentheses.
        """
        self._timezone = timezone
        self._zone_name = zone_name
        self._last: int | None = None
        self._text = b""

    def render(self, seconds: float) -> bytes:
        """
        @param seconds: POSIX seconds.
        @return: the date in ASCII.
        """
        whole = int(seconds)
        if whole != self._last:
            offset = self._timezone(seconds)
            moment = time.gmtime(whole + offset)
            minutes = abs(offset) // 60
            name = self._zone_name(seconds)
            text = (
                f"{_DAYS[moment.tm_wday]}, {moment.tm_mday:2d} {_MONTHS[moment.tm_mon - 1]} {moment.tm_year}"
                f" {moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d}"
                f" {'-' if offset < 0 else '+'}{minutes // 60:02d}{minutes % 60:02d}"
                f"{f' ({name})' if name else ''}"
            )
            self._text = text.encode("ascii", "replace")
            self._last = whole
        return self._text

    def stamp(self, seconds: float) -> bytes:
        """
        @return: the local time as in Message-Ids, C{20261122050052}.
        """
        moment = time.gmtime(int(seconds) + self._timezone(seconds))
        return time.strftime("%Y%m%d%H%M%S", moment).encode("ascii")
