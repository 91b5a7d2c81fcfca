"""
What the local agent reads from the configuration, and which mailbox a user has.

Takes an L{IConfig<qmqpd_tx.interfaces.IConfig>}, gives frozen settings; L{ConfigError} names the
parameter. Pure. Answers to local(8)'s C{home_mailbox} and C{mail_spool_directory}.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import frozen

from qmqpd_tx.interfaces import ConfigError, IConfig
from qmqpd_tx.transports.local.failure import MailboxFailure
from qmqpd_tx.transports.local.locking import LockMethods, lock_methods
from qmqpd_tx.transports.local.maildir import MaildirDelivery
from qmqpd_tx.transports.local.mbox import MboxDelivery
from qmqpd_tx.transports.local.users import User, UserLookup, any_user, passwd_lookup


@frozen(slots=True)
class LocalSettings:
    """
    @ivar look_up: who a local part is.
    @ivar home_mailbox: a path relative to the home directory, or C{""}.
    @ivar spool: C{mail_spool_directory}.
    @ivar locks: how mbox files are locked.
    @ivar lock_attempts: how often to try.
    @ivar lock_delay: seconds between tries.
    @ivar size_limit: bytes, 0 for none.
    @ivar strict: whether a mailbox file must belong to its user.
    @ivar delimiters: C{recipient_delimiter}.
    @ivar require_home: C{require_home_directory}.
    @ivar delivered_to: whether to put the C{Delivered-To} header on top.
    """

    look_up: UserLookup
    home_mailbox: str
    spool: str
    locks: LockMethods
    lock_attempts: int
    lock_delay: float
    size_limit: int
    strict: bool
    delimiters: bytes
    delivered_to: bool
    require_home: bool

    def find(self, name: bytes) -> User | None:
        """
        Look a user up. May block: run it in a thread.

        @param name: the local part, in lower case, without its extension.
        @return: the user, or L{None} when there is none.
        @raise MailboxFailure: the user has no home directory, and must.
        """
        user = self.look_up(name)
        if user is not None and self.require_home and not os.path.isdir(user.home):
            raise MailboxFailure(
                "4.3.0",
                f"cannot access home directory {user.home} of user {user.name}: make it, or set "
                "require_home_directory = no",
            )
        return user

    def delivery(self, user: User, now: Callable[[], float]) -> MboxDelivery | MaildirDelivery:
        """
        @param now: the time for file names, POSIX seconds.
        @return: one delivery to the user's mailbox, not begun.
        @raise MailboxFailure: the user has no place for one.
        """
        in_spool = not self.home_mailbox
        if not in_spool and not user.home.startswith("/"):
            raise MailboxFailure("4.2.0", f"user {user.name} has no home directory for home_mailbox")
        base = self.spool if in_spool else user.home
        name = user.name if in_spool else self.home_mailbox
        path = os.path.join(base, name)
        if (self.spool if in_spool else self.home_mailbox).endswith("/"):
            return MaildirDelivery(path.rstrip("/") + "/", user, self.size_limit, in_spool, now)
        return MboxDelivery(path, user, self.locks, self.size_limit, self.strict, in_spool)


def local_settings(config: IConfig, system_users: UserLookup | None = None) -> LocalSettings:
    """
    @param system_users: looks up system users; the system's own database when L{None}.
    @raise ConfigError: the parameters make no sense together.
    """
    home_mailbox = config.string("home_mailbox").strip()
    spool = config.string("mail_spool_directory").strip()
    lookup = config.string("local_user_lookup")
    if lookup == "any":
        home_mailbox = ""  # These users have no home.
    elif lookup != "passwd":
        raise ConfigError(f'local_user_lookup: unknown look-up "{lookup}"; known are: passwd, any')
    if home_mailbox.startswith("/") or ".." in home_mailbox.split("/"):
        raise ConfigError(
            f"home_mailbox: {home_mailbox}: must be a path below the home directory, "
            "as in Maildir/ or Mailbox"
        )
    if not home_mailbox and not spool.startswith("/"):
        raise ConfigError(f'mail_spool_directory: "{spool}": must be an absolute path')
    size_limit = config.integer("mailbox_size_limit")
    message_limit = config.integer("message_size_limit")
    if size_limit and (message_limit == 0 or size_limit < message_limit):
        limit = "unlimited" if message_limit == 0 else str(message_limit)
        raise ConfigError(
            f"mailbox_size_limit: {size_limit} is smaller than message_size_limit ({limit}): "
            "raise it, or set it to 0"
        )
    return LocalSettings(
        look_up=any_user if lookup == "any" else system_users or passwd_lookup(),
        home_mailbox=home_mailbox,
        spool=spool,
        locks=lock_methods(config.words("mailbox_delivery_lock"), config.seconds("stale_lock_time")),
        lock_attempts=max(config.integer("deliver_lock_attempts"), 1),
        lock_delay=config.seconds("deliver_lock_delay"),
        size_limit=size_limit,
        strict=config.boolean("strict_mailbox_ownership"),
        delimiters=config.string("recipient_delimiter").encode(),
        require_home=config.boolean("require_home_directory") and lookup == "passwd",
        delivered_to="file" in config.words("prepend_delivered_header"),
    )
