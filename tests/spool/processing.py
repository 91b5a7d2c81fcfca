"""
A disk process without a process: the real worker, called at once.
"""

from __future__ import annotations

from collections.abc import Callable

from qmqpd_tx.spool.diskchild import ANSWER, COMMIT, MOVE, MOVE_KIND, PATH, REMOVE, Frame, Syncer, Worker
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.process import LOST
from qmqpd_tx.spool.spares import Spares

Answered = Callable[[int], None]


class InlineProcess:
    """
    Does the work of each request, or of a batch of them, before it returns.

    @ivar hold: keep requests until L{release}, which does them as one batch.
    @ivar done: the kinds of the requests that were done well.
    """

    def __init__(self, fs: FileSystem, how: str = "fsync", spares: Spares | None = None) -> None:
        self.running = True
        self.hold = False
        self.done: list[bytes] = []
        self.kept: list[int] = []
        self._worker = Worker(fs, Syncer(fs, how), spares)
        self._frames: list[Frame] = []
        self._answered: dict[int, tuple[bytes, Answered]] = {}
        self._number = 0

    def commit(self, path: bytes, data: bytes, answered: Answered) -> None:
        """See L{DiskProcess.commit}."""
        self._request(COMMIT, PATH.pack(len(path)) + path + data, answered)

    def move(self, source: bytes, target: bytes, due: float | None, answered: Answered) -> None:
        """See L{DiskProcess.move}."""
        head = MOVE.pack(len(source), len(target), float("nan") if due is None else due)
        self._request(MOVE_KIND, head + source + target, answered)

    def remove(self, path: bytes, answered: Answered) -> None:
        """See L{DiskProcess.remove}."""
        self._request(REMOVE, path, answered)

    def keep(self, fd: int) -> None:
        """See L{DiskProcess.keep}."""
        self.kept.append(fd)
        self._worker.adopt()

    def stop(self) -> None:
        """See L{DiskProcess.stop}."""
        self.running = False

    def _request(self, kind: bytes, payload: bytes, answered: Answered) -> None:
        self._number += 1
        self._frames.append(Frame(self._number, kind, payload))
        self._answered[self._number] = (kind, answered)
        if not self.hold:
            self.release()

    def release(self) -> None:
        """
        Do what was held, as one batch.
        """
        self.hold = False
        frames, self._frames = self._frames, []
        for answers in self._worker.work(frames):
            for number, error in ANSWER.iter_unpack(answers):
                kind, answered = self._answered.pop(number)
                if not error:
                    self.done.append(kind)
                answered(error)

    def die(self, work: bool) -> None:
        """
        End as if killed.

        @param work: whether what was held is done, though nobody hears of it.
        """
        self.running = self.hold = False
        frames, self._frames = self._frames, []
        if work:
            for _ in self._worker.work(frames):
                pass
        lost, self._answered = self._answered, {}
        for _, answered in lost.values():
            answered(LOST)
