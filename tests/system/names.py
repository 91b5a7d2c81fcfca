"""
A DNS server under the test's control.
"""

from __future__ import annotations

import socket
import threading

from twisted.names import dns

CLIENT = "127.0.0.77"
NAME = "client.example.test"


class NameServer:
    """
    A DNS server in a thread that knows one client; a context manager.

    @ivar questions: how many it was asked.
    """

    def __init__(self, answers: bool = True) -> None:
        """
        @param answers: whether it ever answers.
        """
        self.questions = 0
        self._answers = answers
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(4096)
            if not data:
                return
            self.questions += 1
            if self._answers:
                self._socket.sendto(self._answer(data), client)

    def _answer(self, data: bytes) -> bytes:
        message = dns.Message()
        message.fromStr(data)
        message.answer, message.recAv = 1, 1
        question = message.queries[0]
        name = question.name.name.lower()
        payload: object = None
        if (question.type, name) == (dns.PTR, b"77.0.0.127.in-addr.arpa"):
            payload = dns.Record_PTR(NAME, 60)
        elif (question.type, name) == (dns.A, NAME.encode()):
            payload = dns.Record_A(CLIENT, 60)
        if payload is None:
            message.rCode = dns.ENAME
        else:
            message.answers = [dns.RRHeader(name, question.type, dns.IN, 60, payload)]
        return message.toStr()

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()
