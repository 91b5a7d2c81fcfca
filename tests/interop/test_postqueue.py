"""
Our queue listings are those of Postfix's postqueue, byte for byte, for the same queue.
"""

from __future__ import annotations

import json
import re
import socket

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.admin.listing import ListedMessage, ListedRecipient, as_json, plain
from qmqpd_tx.netstring import encode
from tests.peers import PrivatePostfix
from tests.service import wait_until


def send(port: int, content: bytes, sender: bytes, recipients: list[bytes]) -> None:
    """
    Hand a message to a QMQP server.
    """
    package = encode(content) + encode(sender) + b"".join(map(encode, recipients))
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(encode(package))
        reply = connection.recv(1000)
    assert b":K" in reply, reply


class PostqueueTests(SynchronousTestCase):
    """Two listings of one queue."""

    def test_same_listings(self) -> None:
        """Deferred and held mail, with odd addresses, several reasons and large sizes."""
        settings = {
            "relayhost": "[127.0.0.1]:1",
            "transport_maps": "inline:{{other.test=smtp:[127.0.0.1]:2}, {retry.test=retry:4.0.0 later}}",
        }
        with PrivatePostfix(settings) as postfix:
            send(postfix.port, b"Subject: x\n\nhello\n", b"a@src.test", [b"b@dst.test"])
            send(
                postfix.port,
                b"x\n" * 9000,
                b"",
                [b"b@dst.test", b"o@other.test", b"c@dst.test", b"r@retry.test"],
            )
            send(
                postfix.port,
                b"x\n",
                b"a\xc3\xa9@src.test",
                [b'"a b"@dst.test', b'q"u\\o@dst.test', b"\xc3\xa9@retry.test"],
            )
            send(postfix.port, b"x\n" * 600000, b"a b@src.test", [b"b" * 300 + b"@retry.test"])
            send(postfix.port, b"x\n", b"hold@src.test", [b"b@retry.test"])
            wait_until(lambda: postfix.log().count("status=deferred") == 10, 30, "all attempts")
            wait_until(lambda: len(list(postfix.queue_files("deferred"))) == 5, 10, "all in deferred")
            held = re.findall(r"(\w+): from=<hold@src.test>", postfix.log())[-1]
            postfix.command("postsuper", "-h", held)
            theirs = postfix.command("postqueue", "-j").decode()
            their_plain = postfix.command("postqueue", "-p").decode()
        records = [json.loads(line) for line in theirs.splitlines()]
        messages = [
            ListedMessage(
                queue_name=record["queue_name"],
                queue_id=record["queue_id"],
                arrival_time=record["arrival_time"],
                size=record["message_size"],
                sender="" if record["sender"] == "MAILER-DAEMON" else record["sender"],
                recipients=[
                    ListedRecipient(one["address"], one.get("delay_reason")) for one in record["recipients"]
                ],
            )
            for record in records
        ]
        self.assertEqual({message.queue_name for message in messages}, {"deferred", "hold"})
        self.assertEqual("".join(as_json(message) + "\n" for message in messages), theirs)
        self.assertEqual("".join(line + "\n" for line in plain(messages)), their_plain)
