"""What the program knows itself: config_directory, process_id, process_name, service_name."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import Host, config_from_text
from qmqpd_tx.config.raw import READ_ONLY

HOST = Host(name="relay.example.org", process_id=42)


class ReadOnlyTests(SynchronousTestCase):
    def test_in_values(self) -> None:
        """
        They may be used in the values of other parameters.
        """
        config = config_from_text(
            "mail_name = $process_name $process_id ${service_name}\n"
            "queue_directory = $config_directory/queue\n",
            "628 inet n - n - - qmqpd\n",
            "/etc/x",
            host=HOST,
        )
        self.assertEqual(config.string("mail_name"), "qmqpd_tx 42 ")
        self.assertEqual(config.string("queue_directory"), "/etc/x/queue")
        service = config.for_service(config.services[0])
        self.assertEqual(service.string("mail_name"), "qmqpd_tx 42 628")

    def test_setting_them_changes_nothing(self) -> None:
        """
        As with Postfix, main.cf cannot set them, and a warning says so.
        """
        text = "".join(f"{name} = foo\n" for name in READ_ONLY)
        config = config_from_text(text + "mail_name = $process_id\n", None, "/etc/x", host=HOST)
        self.assertEqual(config.string("mail_name"), "42")
        self.assertEqual(config.string("process_name"), "qmqpd_tx")
        self.assertEqual(config.string("config_directory"), "/etc/x")
        self.assertEqual(
            config.warnings(),
            [
                "main.cf, line 1: overriding earlier entry: config_directory=/etc/x",
                "main.cf, line 2: overriding earlier entry: process_id=42",
                "main.cf, line 3: overriding earlier entry: process_name=qmqpd_tx",
                "main.cf, line 4: overriding earlier entry: service_name=",
            ],
        )

    def test_nor_does_master_cf(self) -> None:
        config = config_from_text(
            "", "628 inet n - n - - qmqpd -o process_id=5 -o service_name=x\n", host=HOST
        )
        service = config.for_service(config.services[0])
        self.assertEqual((service.string("process_id"), service.string("service_name")), ("42", "628"))
