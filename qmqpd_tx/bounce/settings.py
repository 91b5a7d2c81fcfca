"""
What the bounce service takes from the configuration, ready for use. Pure.

A reload makes a new one. Answers to the parameters of bounce(8).
"""

from __future__ import annotations

from attrs import frozen

from qmqpd_tx.interfaces import IConfig, Treatment


@frozen(slots=True)
class Settings:
    """
    @ivar hostname: C{myhostname}.
    @ivar mail_name: the program's name in field names.
    @ivar size_limit: C{bounce_size_limit}: longer messages are returned as headers only.
    @ivar classes: C{notify_classes}.
    @ivar double_bounce: C{double_bounce_sender}, at C{myhostname} unless it names a domain.
    @ivar copies_to: C{bounce_notice_recipient}.
    @ivar double_bounces_to: C{2bounce_notice_recipient}.
    @ivar delays_to: C{delay_notice_recipient}.
    @ivar warning_time: C{delay_warning_time}, seconds; 0 for no warnings.
    @ivar confirms: C{confirm_delay_cleared}, where there are warnings.
    @ivar lifetime: C{maximal_queue_lifetime}, seconds.
    @ivar verp: whether each recipient of a VERP message has its own notice (not C{disable_verp_bounces}).
    @ivar treatment: what notices go through on their way in: content checks and mail filters only where
        C{internal_mail_filter_classes} has C{bounce}.
    """

    hostname: str
    mail_name: str
    size_limit: int
    classes: frozenset[str]
    double_bounce: bytes
    copies_to: bytes
    double_bounces_to: bytes
    delays_to: bytes
    warning_time: float
    confirms: bool
    lifetime: float
    verp: bool
    treatment: Treatment

    @classmethod
    def from_config(cls, config: IConfig) -> Settings:
        """
        @return: the settings of a configuration.
        """
        hostname = config.string("myhostname")
        sender = config.string("double_bounce_sender").encode()
        warning_time = config.seconds("delay_warning_time")
        filtered = "bounce" in config.words("internal_mail_filter_classes")
        return cls(
            hostname=hostname,
            mail_name=config.string("mail_name"),
            size_limit=config.integer("bounce_size_limit"),
            classes=frozenset(config.words("notify_classes")),
            double_bounce=sender if b"@" in sender else sender + b"@" + hostname.encode(),
            copies_to=config.string("bounce_notice_recipient").encode(),
            double_bounces_to=config.string("2bounce_notice_recipient").encode(),
            delays_to=config.string("delay_notice_recipient").encode(),
            warning_time=warning_time,
            confirms=warning_time > 0 and config.boolean("confirm_delay_cleared"),
            lifetime=config.seconds("maximal_queue_lifetime"),
            verp=not config.boolean("disable_verp_bounces"),
            treatment=Treatment(checks=filtered, milters=filtered),
        )

    def discards(self, sender: bytes) -> bool:
        """
        @return: whether this is the sender of notices to the postmaster, about which nobody is told.
        """
        return sender.lower() == self.double_bounce.lower()
