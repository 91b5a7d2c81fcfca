"""
Notices that configuration or tables have changed, and has them read again.

Part of the composition root: takes the names of files, and a way to reload. Tables are looked at every
C{table_check_interval}, as each Postfix daemon does between two requests; main.cf and master.cf when a
service has had C{max_use} connections or nothing to do for C{max_idle}, which is when a Postfix daemon ends
and a new one would read them: so changes are picked up without anybody asking. Either way it is a whole
reload, which is refused as a whole: what was refused is not tried again before a file changes once more.
Looking costs a stat(2) for each file.

Answers to the end of life of Postfix's daemons.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IConfig

log = Logger(namespace="qmqpd_tx.master")

Stamps = Mapping[str, tuple[int, ...]]


def stamps(paths: Sequence[str]) -> Stamps:
    """
    @return: what tells one content of a file from another, by path; nothing for a file that is not there.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found[path] = ()
        else:
            found[path] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def no_changes() -> Sequence[str]:
    """
    @return: that no file has changed, where nobody can look.
    """
    return ()


class Refresh(Service):
    """
    @param clock: the time.
    @param config: C{table_check_interval}.
    @param files: of the configuration.
    @param changed_tables: names the files of tables that are not what they were when they were read.
    @param reload: reads everything again; has logged what went wrong when it returns.
    """

    def __init__(
        self,
        clock: IReactorTime,
        config: IConfig,
        files: Sequence[str],
        changed_tables: Callable[[], Sequence[str]],
        reload: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._files = files
        self._changed_tables = changed_tables
        self._reload = reload
        self._call: IDelayedCall | None = None
        self._read = stamps(files)
        self._refused: Stamps = {}
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        Use another configuration; takes effect after the interval under way.
        """
        self._interval = config.seconds("table_check_interval")

    def loading(self) -> None:
        """
        To be called when a reload begins: what is in the files now will be in force, or refused.
        """
        self._read = stamps(self._files)
        self._refused = stamps(self._changed_tables())

    def startService(self) -> None:
        """See L{Service}."""
        super().startService()  # type: ignore[no-untyped-call]
        self._arm()

    def stopService(self) -> None:
        """See L{Service}."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def look(self) -> None:
        """
        Look at the configuration: it is time (C{max_use}, C{max_idle}).
        """
        if self.running and stamps(self._files) != self._read:
            log.info("the configuration has changed -- reloading")
            self._reload()

    def _arm(self) -> None:
        self._call = self._clock.callLater(self._interval, self._look_at_tables)

    def _look_at_tables(self) -> None:
        self._arm()
        now = stamps(self._changed_tables())
        news = [path for path, stamp in now.items() if self._refused.get(path) != stamp]
        if news:
            for path in news:
                log.info("table {path} has changed -- reloading", path=path)
            self._reload()
