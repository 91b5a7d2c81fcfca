"""
The local agent: what ends up in mailboxes, and what is said about the rest.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError, IDeliveryAgent, IDeliveryTransport
from qmqpd_tx.message import Recipient
from qmqpd_tx.status import Action, DeliveryReport, Outcome
from qmqpd_tx.transports.local import LocalAgent, LocalTransport
from qmqpd_tx.transports.local.agent import SLICE
from qmqpd_tx.transports.local.users import User
from tests.transports.fakes import Content, ThreadlessReactor, context, recipients, request

START = 1_795_325_199.5
MESSAGE = b"Received: from x\n\tby y\nSubject: x\n\nFrom here\n>From there\nbody\n"


class LocalCase(SynchronousTestCase):
    """A scratch folder with a home, a mail spool, and a user C{anna}."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        self.spool = self.folder / "spool"
        self.spool.mkdir()
        self.asked: list[bytes] = []
        self.reactor = ThreadlessReactor()
        self.reactor.advance(START)

    def find(self, name: bytes) -> User | None:
        self.asked.append(name)
        if name != b"anna":
            return None
        return User("anna", os.geteuid(), os.getegid(), str(self.home))

    def transport(self, settings: str = "home_mailbox = Maildir/") -> LocalTransport:
        config = config_from_text(
            f"recipient_delimiter = +\nmail_spool_directory = {self.spool}\n{settings}\n"
        )
        return LocalAgent(self.find).transport(context("local", config, self.reactor))

    def deliver(
        self,
        whom: list[Recipient],
        content: Content | None = None,
        settings: str = "home_mailbox = Maildir/",
        sender: bytes = b"sender@a.test",
    ) -> list[Outcome]:
        report: DeliveryReport = self.successResultOf(
            self.transport(settings).deliver(request(whom, content or Content(MESSAGE), sender))
        )
        self.assertIsNone(report.destination_failure)
        return list(report.outcomes)

    def deliver_one(
        self,
        content: Content | None = None,
        settings: str = "home_mailbox = Maildir/",
        address: bytes = b"anna@h.test",
    ) -> tuple[Action, str, str]:
        (outcome,) = self.deliver(recipients(address), content, settings)
        return outcome.action, outcome.dsn, outcome.text


class MaildirTests(LocalCase):
    """C{home_mailbox = Maildir/}."""

    def files(self, base: Path | None = None) -> list[Path]:
        return sorted(((base or self.home / "Maildir") / "new").iterdir())

    def test_delivered(self) -> None:
        """The copy has Postfix's three headers, then the message byte for byte."""
        whom = [Recipient(b"Anna+ext@h.test", b"anna+ext", 1)]
        (outcome,) = self.deliver(whom)
        self.assertEqual(
            outcome, Outcome(whom[0], Action.SENT, "2.0.0", "delivered to maildir", relay="local")
        )
        (file,) = self.files()
        self.assertEqual(
            file.read_bytes(),
            b"Return-Path: <sender@a.test>\nX-Original-To: anna+ext\nDelivered-To: Anna+ext@h.test\n"
            + MESSAGE,
        )
        self.assertEqual(self.asked, [b"anna"])

    def test_names_and_modes(self) -> None:
        """Folders are 0700, the file is 0600, its name is unique, and C{tmp} is empty."""
        self.deliver(recipients(b"anna@h.test", b"anna@h.test"))
        files = self.files()
        self.assertEqual(len(files), 2)
        for file in files:
            self.assertRegex(file.name, rf"^{int(START)}\.V[0-9a-f]+I[0-9a-f]+M500000\..+$")
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        for folder in ("", "tmp", "new", "cur"):
            self.assertEqual(stat.S_IMODE((self.home / "Maildir" / folder).stat().st_mode), 0o700)
        self.assertEqual(list((self.home / "Maildir" / "tmp").iterdir()), [])

    def test_null_sender_and_quotes(self) -> None:
        """The null sender has empty brackets; local parts are quoted; no address writes a header."""
        whom = [Recipient(b"anna+a b@h.test", b"anna+a\nb@h.test", 1)]
        self.deliver(whom, sender=b"")
        (file,) = self.files()
        self.assertTrue(
            file.read_bytes().startswith(
                b"Return-Path: <>\n"
                b'X-Original-To: "anna+a?b"@h.test\nDelivered-To: "anna+a b"@h.test\nReceived:'
            )
        )

    def test_no_final_newline(self) -> None:
        """The last line gets its end."""
        self.deliver_one(Content(b"Subject: x\n\nend"))
        self.assertTrue(self.files()[0].read_bytes().endswith(b"\n\nend\n"))

    def test_large_in_slices(self) -> None:
        """A message larger than a slice arrives whole and is never read whole."""
        body = b"Subject: big\n\n" + os.urandom(3 * SLICE).replace(b"\n", b"x") + b"\n"
        content = Content(body)
        self.assertEqual(self.deliver_one(content), (Action.SENT, "2.0.0", "delivered to maildir"))
        self.assertTrue(self.files()[0].read_bytes().endswith(b"Delivered-To: anna@h.test\n" + body))
        self.assertLessEqual(content.largest, SLICE)

    def test_content_breaks_off(self) -> None:
        """A queue file that cannot be read defers, and leaves no file behind."""
        action, dsn, text = self.deliver_one(Content(b"S: x\n\n" + b"y" * 3 * SLICE, fails_at=SLICE))
        self.assertEqual((action, dsn), (Action.DEFERRED, "4.3.0"))
        self.assertIn("queue file is gone", text)
        self.assertEqual(self.files(), [])
        self.assertEqual(list((self.home / "Maildir" / "tmp").iterdir()), [])

    def test_spool_maildir(self) -> None:
        """C{mail_spool_directory} with a final slash holds a Maildir for each user."""
        settings = f"mail_spool_directory = {self.spool}/"
        self.assertEqual(self.deliver_one(settings=settings)[0], Action.SENT)
        self.assertEqual(len(self.files(self.spool / "anna")), 1)

    def test_spool_maildir_of_somebody_else(self) -> None:
        """A symbolic link in the spool directory is not followed."""
        (self.folder / "elsewhere").mkdir()
        for name in ("tmp", "new", "cur"):
            (self.folder / "elsewhere" / name).mkdir()
        (self.spool / "anna").symlink_to(self.folder / "elsewhere")
        action, dsn, text = self.deliver_one(settings=f"mail_spool_directory = {self.spool}/")
        self.assertEqual((action, dsn), (Action.DEFERRED, "4.2.0"))
        self.assertIn("is not a directory of the recipient's", text)
        self.assertEqual(list((self.folder / "elsewhere" / "new").iterdir()), [])

    def test_unwritable(self) -> None:
        """Where no Maildir can be made the mail waits, and the text says what failed."""
        (self.home / "Maildir").write_text("in the way")
        action, dsn, text = self.deliver_one()
        self.assertEqual((action, dsn), (Action.DEFERRED, "4.2.0"))
        self.assertRegex(text, "^maildir delivery failed: create maildir file .*/tmp/.*: Not a directory$")

    def test_too_large(self) -> None:
        """C{mailbox_size_limit} limits each file."""
        outcome = self.deliver_one(
            Content(b"S: x\n\n" + b"y" * 5000),
            "home_mailbox = Maildir/\nmessage_size_limit = 100\nmailbox_size_limit = 3000",
        )
        self.assertEqual(outcome[:2], (Action.BOUNCED, "5.2.2"))
        self.assertEqual(self.files(), [])


class MboxTests(LocalCase):
    """A mailbox file in the mail spool directory."""

    SETTINGS = "mailbox_delivery_lock = fcntl, dotlock"

    @property
    def mailbox(self) -> Path:
        return self.spool / "anna"

    def test_delivered(self) -> None:
        """Postfix's form: From_ line, headers, quoted From lines, an empty line at the end."""
        self.assertEqual(
            self.deliver_one(settings=self.SETTINGS), (Action.SENT, "2.0.0", "delivered to mailbox")
        )
        text = self.mailbox.read_bytes()
        self.assertRegex(text, rb"^From sender@a\.test  \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d 20\d\d\n")
        self.assertEqual(
            text.partition(b"\n")[2],
            b"Return-Path: <sender@a.test>\nX-Original-To: anna@h.test\nDelivered-To: anna@h.test\n"
            + MESSAGE.replace(b"\nFrom here", b"\n>From here")
            + b"\n",
        )
        self.assertEqual(stat.S_IMODE(self.mailbox.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.spool), ["anna"])

    def test_appended(self) -> None:
        """Messages follow each other; the null sender is MAILER-DAEMON."""
        self.deliver_one(Content(b"S: 1\n\nno end"), self.SETTINGS)
        first = self.mailbox.read_bytes()
        self.deliver(recipients(b"anna@h.test"), Content(b"S: 2\n\n"), self.SETTINGS, sender=b"")
        text = self.mailbox.read_bytes()
        self.assertTrue(first.endswith(b"\nno end\n\n"))
        self.assertTrue(text.startswith(first + b"From MAILER-DAEMON  "))

    def test_home_file(self) -> None:
        """C{home_mailbox} without a final slash is a file in the home directory."""
        self.deliver_one(settings="home_mailbox = Mailbox")
        self.assertTrue((self.home / "Mailbox").read_bytes().startswith(b"From "))

    def test_dotlock(self) -> None:
        """While somebody's lock file is there the delivery waits, and goes on when it is gone."""
        lock = self.spool / "anna.lock"
        lock.touch()
        os.utime(lock, None)
        d = self.transport(self.SETTINGS).deliver(request(recipients(b"anna@h.test")))
        self.assertNoResult(d)
        self.reactor.advance(1)
        self.assertNoResult(d)
        lock.unlink()
        self.reactor.advance(1)
        self.assertEqual(self.successResultOf(d).outcomes[0].action, Action.SENT)
        self.assertFalse(lock.exists())

    def test_lock_attempts(self) -> None:
        """After C{deliver_lock_attempts} the mail is deferred; the mailbox and the lock are as they were."""
        lock = self.spool / "anna.lock"
        lock.touch()
        settings = self.SETTINGS + "\ndeliver_lock_attempts = 3\ndeliver_lock_delay = 2s"
        d = self.transport(settings).deliver(request(recipients(b"anna@h.test")))
        self.reactor.advance(2)
        self.assertNoResult(d)
        self.reactor.advance(2)
        (outcome,) = self.successResultOf(d).outcomes
        self.assertEqual((outcome.action, outcome.dsn), (Action.DEFERRED, "4.2.0"))
        self.assertEqual(
            outcome.text,
            f"cannot update mailbox {self.mailbox} for user anna. "
            f"unable to create lock file {lock}: File exists",
        )
        self.assertTrue(lock.exists())
        self.assertFalse(self.mailbox.exists())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stale_lock(self) -> None:
        """A lock file older than C{stale_lock_time} is no lock."""
        lock = self.spool / "anna.lock"
        lock.touch()
        os.utime(lock, (1, 1))
        self.assertEqual(self.deliver_one(settings=self.SETTINGS)[0], Action.SENT)
        self.assertFalse(lock.exists())

    def test_flock(self) -> None:
        """A mailbox locked with flock by somebody else is waited for."""
        with self.mailbox.open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            d = self.transport("mailbox_delivery_lock = flock").deliver(request(recipients(b"anna@h.test")))
            self.assertNoResult(d)
        self.reactor.advance(1)
        self.assertEqual(self.successResultOf(d).outcomes[0].action, Action.SENT)

    def test_too_large(self) -> None:
        """A mailbox that would outgrow C{mailbox_size_limit} stays as it is, and the mail bounces."""
        self.mailbox.write_bytes(b"x" * 2990)
        outcome = self.deliver_one(settings="message_size_limit = 100\nmailbox_size_limit = 3000")
        self.assertEqual(
            outcome,
            (
                Action.BOUNCED,
                "5.2.2",
                f"cannot update mailbox {self.mailbox} for user anna. error writing message: File too large",
            ),
        )
        self.assertEqual(self.mailbox.read_bytes(), b"x" * 2990)
        self.assertEqual(os.listdir(self.spool), ["anna"])

    def test_cut_back(self) -> None:
        """A delivery that fails in the middle leaves the mailbox as it was."""
        self.mailbox.write_bytes(b"old mail\n\n")
        action, dsn, _ = self.deliver_one(
            Content(b"S: x\n\n" + b"y" * 3 * SLICE, fails_at=SLICE), self.SETTINGS
        )
        self.assertEqual((action, dsn), (Action.DEFERRED, "4.3.0"))
        self.assertEqual(self.mailbox.read_bytes(), b"old mail\n\n")
        self.assertEqual(os.listdir(self.spool), ["anna"])

    def test_after_a_crash(self) -> None:
        """Part of a message at the end of the mailbox does not swallow the next one."""
        self.mailbox.write_bytes(b"From x@y  Sun Nov 22 05:26:39 2026\nSubj")
        self.deliver_one(settings=self.SETTINGS)
        self.assertIn(b"\nSubj\n\nFrom sender@a.test  ", self.mailbox.read_bytes())

    def test_links_refused(self) -> None:
        """Neither a symbolic link nor a file with a second name is written to."""
        victim = self.folder / "victim"
        victim.write_bytes(b"precious")
        self.mailbox.symlink_to(victim)
        self.assertEqual(self.deliver_one(settings=self.SETTINGS)[:2], (Action.DEFERRED, "4.2.0"))
        self.mailbox.unlink()
        os.link(victim, self.mailbox)
        action, _, text = self.deliver_one(settings=self.SETTINGS)
        self.assertEqual(action, Action.DEFERRED)
        self.assertIn("hard links", text)
        self.assertEqual(victim.read_bytes(), b"precious")

    def test_directory(self) -> None:
        """A directory where the mailbox should be defers."""
        self.mailbox.mkdir()
        action, dsn, text = self.deliver_one(settings=self.SETTINGS)
        self.assertEqual((action, dsn), (Action.DEFERRED, "4.2.0"))
        self.assertIn("cannot open file: Is a directory", text)

    def test_one_at_a_time(self) -> None:
        """Two deliveries to one mailbox do not mix, whatever locks the file system has."""
        gate: Deferred[None] = Deferred()

        class Slow(Content):
            async def read(self, offset: int, length: int) -> bytes:
                if offset:
                    await gate
                return await super().read(offset, length)

        transport = self.transport("mailbox_delivery_lock = fcntl")
        long = b"S: long\n\n" + b"y" * SLICE + b"\n"
        first = transport.deliver(request(recipients(b"anna@h.test"), Slow(long)))
        second = transport.deliver(request(recipients(b"anna@h.test"), Content(b"S: short\n\n")))
        self.assertNoResult(second)
        gate.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        parts = re.split(rb"(?m)^From .*\n", self.mailbox.read_bytes())
        self.assertEqual([part.count(b"S: ") for part in parts], [0, 1, 1])
        self.assertTrue(parts[1].endswith(long + b"\n"))


class DecisionTests(LocalCase):
    """Who gets mail at all."""

    def test_unknown_user(self) -> None:
        """An unknown user bounces, named without extension and in lower case."""
        self.assertEqual(
            self.deliver_one(address=b"Nosuch+x@h.test"),
            (Action.BOUNCED, "5.1.1", 'unknown user: "nosuch"'),
        )

    def test_loop(self) -> None:
        """A recipient named in a Delivered-To header bounces; the line may be long after the first slice."""
        filler = b"".join(b"X-Filler: %d\n" % number for number in range(20_000))
        for header in (
            b"Delivered-To: anna+A@H.test\n",
            filler + b"delivered-to :  ANNA+a@h.test\n" + filler,
        ):
            self.assertEqual(
                self.deliver_one(Content(header + b"\nbody\n"), address=b"Anna+a@h.test"),
                (Action.BOUNCED, "5.4.6", "mail forwarding loop for Anna+a@h.test"),
            )

    def test_no_loop(self) -> None:
        """Other recipients' headers, a folded one, and the body are no loop."""
        for content in (
            b"Delivered-To: anna@other.test\nDelivered-To:\n anna@h.test\nDelivered-To: <anna@h.test>\n\n",
            b"S: x\n\nDelivered-To: anna@h.test\n",
            b"\nDelivered-To: anna@h.test\n",
        ):
            self.assertEqual(self.deliver_one(Content(content))[0], Action.SENT, content)

    def test_required_names(self) -> None:
        """Mail for postmaster where there is no such user is dropped with a warning, as Postfix does."""
        self.assertEqual(self.deliver_one(address=b"Postmaster@h.test"), (Action.SENT, "2.0.0", "discarded"))

    def test_several_recipients(self) -> None:
        """Each recipient has its own outcome."""
        outcomes = self.deliver(recipients(b"anna@h.test", b"nobody@h.test", b"anna+x@h.test"))
        self.assertEqual([o.action for o in outcomes], [Action.SENT, Action.BOUNCED, Action.SENT])

    def test_any_user(self) -> None:
        """With C{local_user_lookup = any} every safe name has a Maildir in the spool directory."""
        settings = f"local_user_lookup = any\nmail_spool_directory = {self.spool}/"
        names = (b"bert", b"Carl.x", b"../dora", b"a/b", b"..", b".hidden", b"", b"\xc3\xa9", b"x" * 200)
        outcomes = self.deliver(recipients(*(name + b"@h.test" for name in names)), settings=settings)
        sent = [o.recipient.address for o in outcomes if o.action is Action.SENT]
        self.assertEqual(sent, [b"bert@h.test", b"Carl.x@h.test"])
        self.assertEqual(sorted(os.listdir(self.spool)), ["bert", "carl.x"])
        self.assertEqual(sorted(os.listdir(self.folder)), ["home", "spool"])

    def test_require_home(self) -> None:
        """C{require_home_directory} defers for a home that is not there."""
        self.home.rmdir()
        settings = "require_home_directory = yes"
        self.assertEqual(self.deliver_one(settings=settings)[:2], (Action.DEFERRED, "4.3.0"))

    def test_cancelled(self) -> None:
        """A cancelled delivery reports what is certain, and begins nothing more."""
        (self.home / "Mailbox.lock").touch()
        d = self.transport("home_mailbox = Mailbox").deliver(
            request(recipients(b"nobody@h.test", b"anna@h.test", b"anna@h.test"))
        )
        d.cancel()
        outcomes = self.successResultOf(d).outcomes
        self.assertEqual([o.dsn for o in outcomes], ["5.1.1", "4.3.2", "4.3.2"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse((self.home / "Mailbox").exists())

    def test_cancelled_in_line(self) -> None:
        """A delivery that is cancelled while another one has the mailbox is not made later."""
        gate: Deferred[None] = Deferred()

        class Slow(Content):
            async def read(self, offset: int, length: int) -> bytes:
                if offset:
                    await gate
                return await super().read(offset, length)

        transport = self.transport("home_mailbox = Mailbox")
        first = transport.deliver(request(recipients(b"anna@h.test"), Slow(b"S: x\n\n" + b"y" * SLICE)))
        second = transport.deliver(request(recipients(b"anna@h.test")))
        second.cancel()
        self.assertEqual(self.successResultOf(second).outcomes[0].action, Action.DEFERRED)
        gate.callback(None)
        self.assertEqual(self.successResultOf(first).outcomes[0].action, Action.SENT)
        self.assertEqual((self.home / "Mailbox").read_bytes().count(b"From sender"), 1)


class ConfigTests(LocalCase):
    """Parameters that make no sense are refused at start-up."""

    def test_refused(self) -> None:
        """Each names the parameter."""
        for settings, word in (
            ("home_mailbox = /etc/x", "home_mailbox"),
            ("home_mailbox = ../x/", "home_mailbox"),
            ("mail_spool_directory = spool", "mail_spool_directory"),
            ("mailbox_size_limit = 1000", "mailbox_size_limit"),
            ("message_size_limit = 0", "mailbox_size_limit"),
            ("mailbox_delivery_lock =", "mailbox_delivery_lock"),
        ):
            error = self.assertRaises(ConfigError, self.transport, settings)
            self.assertIn(word, str(error))

    def test_interfaces(self) -> None:
        """Agent and transport provide their interfaces."""
        from zope.interface.verify import verifyObject

        verifyObject(IDeliveryAgent, LocalAgent(self.find))
        verifyObject(IDeliveryTransport, self.transport())
        self.assertIsNone(self.successResultOf(self.transport().stop()))
