"""
A scenario runs on the real queue manager, and what comes out is what would happen.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import ConfigError, IBounces, IDeliveryTransport, IRouter
from qmqpd_tx.message import Queue
from qmqpd_tx.simulate.parts import CountingBounces, Network, ScenarioRouter, ScriptedTransport
from qmqpd_tx.simulate.read import scenario_from_text
from qmqpd_tx.simulate.records import Failure
from qmqpd_tx.simulate.result import Figures, figures
from qmqpd_tx.simulate.world import World

LATENCY = "latency = { connect = 0.1, greeting = 0.1, message = 0.3, recipient = 0.5 }"


def world_of(
    destination: str = "",
    arrival: str = 'at = "09:00"',
    main: str = "",
    top: str = "",
    more: str = "",
) -> World:
    """
    @return: a small scenario, at its end.
    """
    text = f"""{top}
[main]
{main}
[[destination]]
name = "sink"
{LATENCY}
{destination}
[[arrival]]
class = "news"
{arrival}
{more}
"""
    world = World(scenario_from_text(text))
    world.run()
    return world


def figures_of(destination: str = "", **rest: str) -> Figures:
    """
    @return: the figures of a small scenario.
    """
    return figures(world_of(destination, **rest))


class PartsTests(SynchronousTestCase):
    """What stands in for the rest keeps the contracts."""

    def test_interfaces(self) -> None:
        """Of routing, transports and bounces."""
        world = world_of()
        network = Network([], world.clock, {}, None)
        verifyObject(IBounces, CountingBounces({}, world.clock))
        verifyObject(IDeliveryTransport, ScriptedTransport(network))
        verifyObject(IRouter, ScenarioRouter(world.scenario.destinations))


class RunTests(SynchronousTestCase):
    """Runs of small scenarios."""

    def test_without_end(self) -> None:
        """
        A scenario that would run for years is given up after its steps, with what to do about it.
        """
        error = self.assertRaises(
            ConfigError,
            world_of,
            'outage = [{ from = "00:00", to = "+30 00:00" }]',
            arrival='at = "09:00"\nmessages = 10',
            main='minimal_backoff_time = "1s"\nmaximal_backoff_time = "1s"\nqueue_run_delay = "1s"',
            top='steps = 5000\nlimit = "30d"',
        )
        self.assertNotIn("\n", str(error))
        for word in ("steps = 5000", "simulated hours", "limit", "allow more"):
            self.assertIn(word, str(error))
        self.assertEqual(figures_of(top='steps = 5000\nstart = "08:59"').ended, "drained")

    def test_one_message(self) -> None:
        """
        A message takes connection, greeting, its own time and that of each recipient; then the run ends.
        """
        found = figures_of(arrival='at = "09:00"\nrecipients = 3')
        (mail,) = found.classes
        self.assertEqual((mail.messages, mail.finished, mail.recipients, mail.delivered), (1, 1, 3, 3))
        self.assertAlmostEqual(mail.delay_longest or 0, 0.5 + 3 * 0.5, 3)
        self.assertAlmostEqual(mail.last or 0, 9 * 3600 + 2.0, 3)
        self.assertEqual((found.ended, found.problems), ("drained", []))
        self.assertAlmostEqual(found.end, 9 * 3600 + 2.0, 3)

    def test_both_schedulers(self) -> None:
        """All mail is delivered, once, by both."""
        for name in ("qmgr", "oqmgr"):
            found = figures_of(
                "domains = 7",
                arrival='at = "09:00"\nrecipients = 500\nmessages = 4\nspread = "zipf"',
                top=f'scheduler = "{name}"',
            )
            self.assertEqual(found.classes[0].delivered, 2000)
            self.assertEqual(found.destinations[0].delivered, 2000)
            self.assertEqual(found.problems, [])

    def test_deterministic(self) -> None:
        """The same seed gives the same figures, another one others."""
        destination = (
            "latency.message = { lognormal = [1, 1] }\nrefusal = [{ probability = 0.2, code = 450 }]"
        )
        arrival = 'from = "09:00"\nto = "10:00"\nmessages = 200\npoisson = true'

        def run(seed: int) -> Figures:
            text = f"seed = {seed}"
            scenario = destination.replace("latency.message", "bandwidth = 100000\n#")
            return figures_of(scenario, arrival=arrival, top=text)

        self.assertEqual(run(1), run(1))
        self.assertNotEqual(run(1).classes[0].delay_most, run(2).classes[0].delay_most)

    def test_window(self) -> None:
        """The window grows from its initial size to its limit, and no further."""
        found = figures_of(
            arrival='at = "09:00"\nmessages = 200',
            main="initial_destination_concurrency = 2\nsmtp_destination_concurrency_limit = 7",
        )
        (sink,) = found.destinations
        self.assertEqual((sink.busy_most, sink.window_most), (7, 7))

    def test_process_limit(self) -> None:
        """All destinations of a transport share its processes."""
        found = figures_of(
            "domains = 50", arrival='at = "09:00"\nmessages = 100', main="default_process_limit = 9"
        )
        self.assertEqual(found.destinations[0].busy_most, 9)

    def test_bounced(self) -> None:
        """5xx to a recipient is final."""
        found = figures_of("refusal = [{ code = 550 }]", arrival='at = "09:00"\nrecipients = 5')
        self.assertEqual((found.classes[0].bounced, found.classes[0].delivered), (5, 0))
        self.assertEqual(found.classes[0].waiting, 0)

    def test_expired(self) -> None:
        """4xx for too long is final as well."""
        found = figures_of(
            'refusal = [{ code = 450, at = "mail" }]',
            main='maximal_queue_lifetime = "1h"',
            top='limit = "1d"',
        )
        (mail,) = found.classes
        self.assertEqual((mail.expired, mail.bounced, mail.waiting), (1, 0, 0))
        self.assertGreater(mail.deferrals, 2)

    def test_greylisting(self) -> None:
        """The first attempt is put off; the one after the backoff gets through."""
        found = figures_of('greylisting = "4m"', main='minimal_backoff_time = "5m"\nqueue_run_delay = "1m"')
        (mail,) = found.classes
        self.assertEqual((mail.first_deferrals, mail.deferrals, mail.delivered), (1, 1, 1))
        self.assertTrue(300 <= (mail.delay_longest or 0) <= 361, mail)
        self.assertEqual(
            (found.destinations[0].first_deferred, found.destinations[0].deferred), (100.0, 50.0)
        )

    def test_greylisted_too_long(self) -> None:
        """An attempt that comes too early is put off again."""
        found = figures_of('greylisting = "8m"', main='minimal_backoff_time = "5m"\nqueue_run_delay = "1m"')
        self.assertEqual(found.classes[0].deferrals, 2)

    def test_outages(self) -> None:
        """Each kind of outage fails in its own way, and ends."""
        for kind, failure in (
            ("refuse", Failure.REFUSED),
            ("timeout", Failure.CONNECT),
            ("421", Failure.REPLY),
        ):
            world = world_of(f'outage = [{{ from = "08:59", to = "09:30", kind = "{kind}" }}]')
            record = world.destinations[0]
            self.assertEqual(record.first.failures[failure], 1, kind)
            self.assertEqual(record.delivered, 1)
            self.assertGreater(world.since_midnight(), 9.5 * 3600)
        world = world_of('outage = [{ from = "08:59", to = "09:30", kind = "4xx" }]')
        self.assertEqual(sum(world.destinations[0].first.failures.values()), 0)
        self.assertGreater(world.classes["news"].deferrals, 0)

    def test_daily_outage(self) -> None:
        """A daily outage comes again, and not before its first day's time."""
        found = figures_of(
            'outage = [{ from = "10:00", to = "11:00", kind = "refuse", daily = true }]',
            arrival='from = "+2 09:58"\nto = "+2 10:02"\nmessages = 4',
        )
        self.assertEqual(found.classes[0].delivered, 4)
        self.assertEqual(found.destinations[0].first_failures, {"connection refused": 2})
        self.assertEqual(found.classes[0].first_deferrals, 2)

    def test_dead(self) -> None:
        """A destination that fails is declared dead for minimal_backoff_time, and its mail not tried."""
        found = figures_of(
            'outage = [{ from = "08:00", to = "09:01", kind = "refuse" }]',
            arrival='at = "09:00"\nmessages = 50',
            main='minimal_backoff_time = "10m"',
        )
        (sink,) = found.destinations
        self.assertEqual(sink.deaths, 1)
        self.assertAlmostEqual(sink.dead_seconds, 600, delta=1)
        self.assertEqual(found.classes[0].untried + sum(sink.failures.values()), 50)
        self.assertGreater(found.classes[0].untried, 40)
        self.assertEqual(found.classes[0].delivered, 50)

    def test_server_limit(self) -> None:
        """A server serves as many as it can; others wait in its queue and are served in turn."""
        found = figures_of("limit = { concurrency = 2, backlog = 50 }", arrival='at = "09:00"\nmessages = 20')
        (mail,) = found.classes
        # Two at a time, 0.9 seconds each after the connection.
        self.assertAlmostEqual(mail.delay_longest or 0, 0.1 + 10 * 0.9, 3)
        self.assertEqual(mail.deferrals, 0)

    def test_421(self) -> None:
        """A server that turns away turns away all but so many."""
        found = figures_of(
            'limit = { concurrency = 2, above = "421" }',
            arrival='at = "09:00"\nmessages = 5',
            top='until = "first-runs"',
        )
        self.assertEqual(found.destinations[0].first_failures, {"refused to talk": 3})

    def test_connection_cache(self) -> None:
        """A kept connection needs no new greeting."""
        for cache, connections in (("", 30), ("cache = {}", 10)):
            found = figures_of(
                cache,
                arrival='at = "09:00"\nmessages = 30',
                main="initial_destination_concurrency = 5\nsmtp_destination_concurrency_limit = 5",
            )
            self.assertEqual(found.destinations[0].connections, connections)

    def test_one_server(self) -> None:
        """Domains may share a server, and its limit."""
        for key, longest in (("", 1.0), ("one_server = true", 0.1 + 6 * 0.9)):
            found = figures_of(
                f"domains = 6\nlimit = {{ concurrency = 1, backlog = 50 }}\n{key}",
                arrival='at = "09:00"\nmessages = 6',
            )
            self.assertAlmostEqual(found.classes[0].delay_longest or 0, longest, 3)

    def test_nexthop(self) -> None:
        """Domains behind one next hop are one destination, with one window."""
        main = "initial_destination_concurrency = 3\nsmtp_destination_concurrency_limit = 3"
        for key, most in (("", 18), ('nexthop = "[relay.test]"', 3)):
            found = figures_of(f"domains = 6\n{key}", arrival='at = "09:00"\nmessages = 60', main=main)
            self.assertEqual(found.destinations[0].busy_most, most)

    def test_rates(self) -> None:
        """Mail comes at its times, regular or not, all of it."""
        for poisson in ("false", "true"):
            world = world_of(arrival=f'from = "09:00"\nto = "11:00"\nrate = "60/hour"\npoisson = {poisson}')
            arrived = world.classes["news"].arrived
            self.assertEqual(arrived.count, 120)
            half = arrived.up_to(world.midnight + 10 * 3600)
            self.assertTrue(40 <= half <= 80, half)

    def test_weights(self) -> None:
        """Recipients go where the weights say."""
        world = world_of(
            arrival='at = "09:00"\nrecipients = 3000\nto_destination = { sink = 3, other = 1 }',
            more='[[destination]]\nname = "other"\n',
        )
        sink, other = (record.delivered for record in world.destinations)
        self.assertEqual(sink + other, 3000)
        self.assertTrue(2100 <= sink <= 2400, sink)

    def test_questions(self) -> None:
        """Questions are answered with the part that is out."""
        found = figures_of(
            arrival='from = "09:00"\nto = "09:10"\nmessages = 600',
            more='[[question]]\nby = "09:05"\n[[question]]\nby = "10:00"\n'
            "[[question]]\nwithin = 0.5\n[[question]]\nwithin = 2\nshare = 0.9\n",
            top="seed = 3",
        )
        early, late, fast, slow = found.answers
        self.assertFalse(early.yes)
        self.assertGreater(early.share, 0.99)
        self.assertEqual((late.yes, late.share), (True, 1.0))
        self.assertEqual((fast.yes, fast.share), (False, 0.0))
        self.assertEqual((slow.yes, slow.share), (True, 1.0))

    def test_limit(self) -> None:
        """The time limit ends what would not end."""
        found = figures_of("refusal = [{ code = 450 }]", top='limit = "10h"')
        self.assertEqual((found.ended, found.classes[0].waiting), ("limit", 1))
        self.assertEqual(found.end, 36000.0)

    def test_queues(self) -> None:
        """The queues are counted, and empty at the end."""
        world = world_of(
            "refusal = [{ code = 450, probability = 0.5 }]",
            arrival='at = "09:00"\nmessages = 40',
            top='start = "09:00"',
        )
        self.assertGreater(max(row.deferred for row in world.sampler.rows), 5)
        self.assertGreater(max(row.active for row in world.sampler.rows), 5)
        self.assertEqual(set(world.queue.sizes.values()), {0})
        self.assertEqual(world.queue.sizes[Queue.HOLD], 0)

    def test_rows_are_bounded(self) -> None:
        """A long run has no more rows than a short one."""
        world = world_of(arrival='at = "+20 09:00"', top='limit = "30d"')
        self.assertLess(len(world.sampler.rows), 2001)
        self.assertGreater(len(world.sampler.rows), 900)

    def test_jitter(self) -> None:
        """deferred_retry_jitter breaks waves of retries."""
        peaks = {}
        for jitter in (0, 50):
            found = figures_of(
                'outage = [{ from = "08:59", to = "10:30", kind = "4xx" }]',
                arrival='at = "09:00"\nmessages = 300',
                main=f'queue_run_delay = "1m"\nminimal_backoff_time = "5m"\ndeferred_retry_jitter = {jitter}',
            )
            self.assertEqual(found.classes[0].delivered, 300)
            peaks[jitter] = found.destinations[0].busiest
        self.assertGreaterEqual(peaks[0], 250)
        self.assertLess(peaks[50], 200)
