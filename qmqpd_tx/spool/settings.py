"""
What the file store wants to know from the configuration, read once.

Takes an L{IConfig}, gives a frozen value.
"""

from __future__ import annotations

from attrs import frozen

from qmqpd_tx.interfaces import ConfigError, IConfig

FSYNC = "fsync"
SYNCFS = "syncfs"
AUTO = "auto"


@frozen(slots=True)
class SpoolSettings:
    """
    @ivar queue_directory: where the queue is.
    @ivar hash_queue_names: queues with subfolders.
    @ivar hash_queue_depth: levels of subfolders.
    @ivar queue_minfree: bytes that must be free for a new message; 0 turns the check off.
    @ivar commit_sync: C{fsync}, C{syncfs} or C{auto}.
    @ivar commit_threads: how many batches of commits may be under way at the same time.
    @ivar disk_process: whether small messages are written by a process of its own.
    @ivar spare_files: how many files of removed messages are kept to be used again; 0 is none.
    @ivar memory_limit: bytes of content of just committed messages kept in memory.
    """

    queue_directory: str
    hash_queue_names: tuple[str, ...] = ()
    hash_queue_depth: int = 1
    queue_minfree: int = 0
    commit_sync: str = FSYNC
    commit_threads: int = 2
    disk_process: bool = False
    spare_files: int = 0
    memory_limit: int = 64 * 1024 * 1024

    @classmethod
    def from_config(cls, config: IConfig) -> SpoolSettings:
        """
        @raise ConfigError: C{queue_commit_sync} is none of these.
        """
        sync = config.string("queue_commit_sync")
        if sync not in (FSYNC, SYNCFS, AUTO):
            raise ConfigError(f"bad value for queue_commit_sync: {sync!r}: specify auto, fsync or syncfs")
        return cls(
            queue_directory=config.string("queue_directory"),
            hash_queue_names=tuple(config.words("hash_queue_names")),
            hash_queue_depth=config.integer("hash_queue_depth"),
            queue_minfree=config.integer("queue_minfree"),
            commit_sync=sync,
            commit_threads=config.integer("queue_commit_threads"),
            disk_process=config.boolean("queue_disk_process"),
            spare_files=config.integer("queue_spare_files"),
            memory_limit=config.integer("qmgr_message_memory_limit"),
        )
