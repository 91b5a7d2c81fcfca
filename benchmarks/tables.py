"""
Intake with content checks and address mapping: the tables, their settings and the messages.

Both servers get the same table files: C{header_checks} with 20 regular expressions as administrators have
them, of which one in fifty messages matches one that only logs; C{canonical_maps}, which has the sender of
every message and an address of its headers; C{virtual_alias_maps}, which has every recipient. The messages
have twelve headers, of lengths as in real mail.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.load import request
from tests.peers import find

HEADER_CHECKS = r"""# Twenty expressions, one a line.
/^Subject:.*(viagra|cialis|levitra)/                                    REJECT no drugs here
/^Subject: +make money fast/                                            REJECT spam
/^Subject:.*[^[:print:]]{8}/                                            REJECT 8-bit garbage in the subject
/^Subject: .*          /                                                REJECT too much space in the subject
/^Subject: *your (account|mailbox) (is|has been) (suspended|limited)/   REJECT phishing
/^Subject:.*\[archive\]/                                                INFO archived
/^X-Mailer:.*(Advanced Mass Sender|The Bat! \(v1|MailList Express)/     REJECT no mass mailers
/^X-Mailer: (0001|Avalanche|Crescent Internet Tool)/                    REJECT no spamware
/^X-Spam-Flag: *YES/                                                    HOLD
/^Received:.*\[(10|172\.(1[6-9]|2[0-9]|3[01])|192\.168)\.[0-9.]+\].*by spam\./  REJECT forged
/^Received: from .*\.(dialup|dyn|pool)\.example\.net/                   REJECT dynamic address
/^From:.*<?(friend|nobody|root)@public\.example/                        REJECT forged sender
/^From: *"?.*[0-9]{8,}.*"? *</                                          REJECT numbered sender
/^To:.*undisclosed.recipients.*<>/                                      REJECT malformed recipients
/^Reply-To:.*@(bulk|offers?)\.example\.(com|net|org)/                   REJECT bulk mail
/^Message-Id:.*<!\~!/                                                   REJECT forged message id
/^Message-Id:[[:space:]]*<[^@>]*>[[:space:]]*$/                         WARN message id without domain
/^Content-(Type|Disposition):.*name[[:space:]]*=.*\.(bat|com|exe|pif|scr|vbs)"?/ REJECT executable attachment
/^Content-Type:.*charset="?(big5|ks_c_5601|gb2312)/                     WARN unusual character set
/^Content-Type: multipart.*boundary="?-*[A-Z]{30}"?$/                   REJECT boundary of a worm
"""

ENTRIES = 500
"""How many entries the address tables have."""

SENDERS = 50
RECIPIENTS = 200
MESSAGES = 200
"""How many different messages there are; they are sent in turn."""


def canonical() -> str:
    """
    @return: the source of C{canonical_maps}.
    """
    lines = [f"list{n}-owner@source.test\tbounces+list{n}@lists.source.test" for n in range(ENTRIES // 2)]
    lines += [f"editor{n}@source.test\tEditor.Number{n}@source.test" for n in range(ENTRIES // 2)]
    return "".join(f"{line}\n" for line in lines)


def virtual() -> str:
    """
    @return: the source of C{virtual_alias_maps}.
    """
    return "".join(f"info{n}@alias.test\trecipient{n}@destination.test\n" for n in range(ENTRIES))


def write_tables(folder: Path, kind: str) -> None:
    """
    Write the tables, and index them with Postfix's postmap where their type has an index.

    @raise RuntimeError: Postfix has no such type.
    """
    (folder / "main.cf").write_text("compatibility_level = 3.6\n")
    (folder / "header_checks").write_text(HEADER_CHECKS)
    for name, text in (("canonical", canonical()), ("virtual", virtual())):
        (folder / name).write_text(text)
        if kind != "texthash":
            done = subprocess.run(
                [find("postmap") or "postmap", "-c", str(folder), f"{kind}:{folder / name}"],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if done.returncode:
                raise RuntimeError(f"postmap {kind}: {done.stderr.strip()}")


def settings(folder: Path, kind: str) -> Mapping[str, str]:
    """
    @param folder: where L{write_tables} wrote.
    @param kind: the type of the address tables.
    @return: the main.cf parameters that turn all of it on.
    """
    return {
        "header_checks": f"regexp:{folder}/header_checks",
        "canonical_maps": f"{kind}:{folder}/canonical",
        "virtual_alias_maps": f"{kind}:{folder}/virtual",
    }


def message(number: int, size: int) -> bytes:
    """
    @param size: bytes of the body.
    @return: one message of a mailing list.
    """
    subject = (
        f"[list{number % SENDERS}] Re: minutes of the meeting in room {number}, and what follows from it"
    )
    if number % 50 == 0:
        subject += " [archive]"
    head = (
        "Received: from mail.example.org (mail.example.org [192.0.2.25])\n"
        "\tby lists.source.test (Postfix) with ESMTPS id 4F1bXk0Qz9z1x\n"
        f"\tfor <list{number % SENDERS}@source.test>; Sun, 22 Nov 2026 10:00:00 +0000 (UTC)\n"
        f"From: Editor Number {number % SENDERS} <editor{number % SENDERS}@source.test>\n"
        f"To: list{number % SENDERS}@lists.source.test\n"
        "Cc: Second Reader <second@destination.test>, third@destination.test\n"
        f"Subject: {subject}\n"
        "Date: Sun, 22 Nov 2026 10:00:00 +0000\n"
        f"Message-ID: <20261122100000.{number:06d}@lists.source.test>\n"
        f"Reply-To: list{number % SENDERS}@lists.source.test\n"
        f"List-Unsubscribe: <mailto:list{number % SENDERS}-unsubscribe@lists.source.test>\n"
        "MIME-Version: 1.0\n"
        'Content-Type: text/plain; charset="utf-8"; format=flowed\n'
        "X-Mailer: Mailing List Manager 5.2\n"
    )
    line = f"{number:04d} All of us agreed that the next meeting is to be shorter than this one.\n"
    return f"{head}\n".encode() + (line * (size // len(line) + 1)).encode()[:size]


def requests(size: int) -> Sequence[bytes]:
    """
    @param size: bytes of each body.
    @return: the QMQP requests.
    """
    return [
        request(
            message(number, size),
            b"list%d-owner@source.test" % (number % SENDERS),
            [b"info%d@alias.test" % (number % RECIPIENTS)],
        )
        for number in range(MESSAGES)
    ]
