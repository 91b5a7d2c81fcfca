"""
Where the service listens, and with what rules for each of its sockets.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import free_port
from tests.service import RunningService, qmqp_send, wait_until
from tests.system.support import require_root, scratch

MESSAGE = b"Subject: hello\n\nbody\n"
REQUEST = b"35:21:" + MESSAGE + b",1:a,3:b@c,,"
DISCARD = "relayhost =\ndefault_transport = discard\n"
DISCARD_LINE = "discard unix - - n - - discard\n"


def send(port: int, message: bytes = MESSAGE) -> bytes:
    """
    @return: the reply.
    """
    return qmqp_send(port, message, b"a@source.test", [b"b@destination.test"])


class CommandLineTests(SynchronousTestCase):
    """C{--listen}."""

    def test_repeated(self) -> None:
        """
        Each endpoint takes mail; master.cf's are not used.
        """
        ports = [free_port() for _ in range(3)]
        listen = tuple(f"tcp:{port}:interface=127.0.0.1" for port in ports[:2])
        master = f"127.0.0.1:{ports[2]} inet n - n - - qmqpd\n" + DISCARD_LINE
        with RunningService(scratch(self), ports[0], DISCARD, master=master, listen=listen):
            for port in ports[:2]:
                self.assertEqual(send(port)[:1], b"K")
            self.assertRaises(OSError, socket.create_connection, ("127.0.0.1", ports[2]))


class MasterTests(SynchronousTestCase):
    """The C{qmqpd} lines of master.cf."""

    def test_kinds_of_service(self) -> None:
        """
        A port on inet_interfaces, host:port, [IPv6]:port, and Twisted endpoints for TCP and UNIX sockets.
        """
        port, with_host, ipv6, endpoint = (free_port() for _ in range(4))
        path = scratch(self)
        master = (
            f"{port} inet n - n - - qmqpd\n"
            f"localhost:{with_host} inet n - n - - qmqpd\n"
            f"[::1]:{ipv6} inet n - n - - qmqpd\n"
            f"tcp:{endpoint}:interface=127.0.0.1 inet n - n - - qmqpd\n"
            f"unix:{path}/qmqp unix n - n - - qmqpd\n" + DISCARD_LINE
        )
        settings = (
            DISCARD + "inet_interfaces = 127.0.0.1\nqmqpd_authorized_clients = 127.0.0.1 [::1] localhost\n"
        )
        with RunningService(path, port, settings, master=master, listen=()) as service:
            for one in (port, with_host, endpoint):
                self.assertEqual(send(one)[:1], b"K")
            with socket.create_connection(("::1", ipv6), 5) as client:
                self.assertEqual(self.converse(client)[:5], b"26:KO")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{path}/qmqp")
                self.assertEqual(self.converse(client)[:5], b"26:KO")
            self.assertIn("connect from localhost[", service.log_text())

    def converse(self, client: socket.socket) -> bytes:
        """
        @return: the whole answer to one message.
        """
        client.settimeout(10)
        client.sendall(REQUEST)
        answer = b""
        while data := client.recv(4096):
            answer += data
        return answer

    def test_service_by_name(self) -> None:
        """
        A name from services(5) is a port.
        """
        require_root()
        port = socket.getservbyname("finger")
        master = "finger inet n - n - - qmqpd\n" + DISCARD_LINE
        service = RunningService(
            scratch(self), port, DISCARD + "inet_interfaces = 127.0.0.9\n", master=master, listen=()
        )
        service.host = "127.0.0.9"
        with service:
            service.wait_for_log("accepting mail on tcp:79:interface=127.0.0.9")

    def test_overrides(self) -> None:
        """
        C{-o} holds for its line only: who may connect, and how large a message may be.
        """
        open_port, closed, small = (free_port() for _ in range(3))
        master = (
            f"{open_port} inet n - n - - qmqpd\n"
            f"{closed} inet n - n - - qmqpd -o qmqpd_authorized_clients=192.0.2.1 -o qmqpd_error_delay=0\n"
            f"{small} inet n - n - - qmqpd\n  -o {{ message_size_limit = 1000 }} -o qmqpd_error_delay=0\n"
            + DISCARD_LINE
        )
        large = MESSAGE + b"x" * 5000 + b"\n"
        settings = DISCARD + "inet_interfaces = 127.0.0.1\n"
        with RunningService(scratch(self), open_port, settings, master=master, listen=()):
            self.assertEqual(send(open_port, large)[:1], b"K")
            self.assertRegex(send(closed), rb"D.*not authorized")
            self.assertEqual(send(small)[:1], b"K")
            self.assertEqual(send(small, large)[:1], b"D")

    def test_process_limit(self) -> None:
        """
        The maxproc column limits how many clients are served at a time; the next waits, and is served then.
        """
        port = free_port()
        master = f"{port} inet n - n - 2 qmqpd\n" + DISCARD_LINE
        settings = DISCARD + "inet_interfaces = 127.0.0.1\n"
        with RunningService(scratch(self), port, settings, master=master, listen=()) as service:
            first = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
            # The service's own start was watched with one connection.
            wait_until(lambda: service.log_text().count(": connect from") == 3, 5, "two clients served")
            with socket.create_connection(("127.0.0.1", port), 5) as third:
                third.sendall(REQUEST)
                third.settimeout(0.3)
                self.assertRaises(TimeoutError, third.recv, 1)
                for client in first:
                    client.close()
                third.settimeout(5)
                self.assertEqual(third.recv(100)[:5], b"26:KO")

    def test_without_master(self) -> None:
        """
        Without a master.cf it is port 628 on inet_interfaces.
        """
        require_root()
        settings = "inet_interfaces = 127.0.0.10\nqmqpd_authorized_clients = 127.0.0.0/8\n"
        service = RunningService(scratch(self), 628, settings, listen=())
        service.host = "127.0.0.10"
        with service:
            service.wait_for_log("accepting mail on tcp:628:interface=127.0.0.10:")

    def test_no_line(self) -> None:
        """
        A master.cf without a qmqpd line is a mail system that takes no mail: that is said.
        """
        service = RunningService(scratch(self), 0, master=DISCARD_LINE, listen=())
        service.start(wait=False)
        try:
            service.wait_for_log("warning: accepting no mail: there is no qmqpd line in master.cf")
        finally:
            service.stop()
