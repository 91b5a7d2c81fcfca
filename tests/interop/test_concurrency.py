"""
How many deliveries a destination gets at a time, step by step, by Postfix and by us.

Every case of L{tests.interop.concurrency_cases} has a transport and a destination of its own, so that one
running queue manager plays all of them at once. The destination holds connections before its greeting and
lets them go one by one, well or with a 421, so that the feedback comes in a known order.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmgr.scheduling.feedback import Feedback, Window, WindowSettings
from tests.interop.concurrency_cases import GROWTH, LIMITED, SUSPENSION, UNUSED
from tests.interop.qmgr_peers import Side, SideBySideTestCase, Sink, Stage, routes
from tests.service import wait_until

BUSY = b"421 4.3.2 no"
REFUSED = "host 127.0.0.1[127.0.0.1] refused to talk to me: 421 4.3.2 no"
SUSPENDED = f"delivery temporarily suspended: {REFUSED}"
AT_ONCE = 20
"""How many cases are played at a time."""


DEBUG = """\
feedback 0.2
queue [127.0.0.1]:PORT: limit 20 window 5 success 0.2 failure 0 fail_cohorts 0
feedback 0.2
queue [127.0.0.1]:PORT: limit 20 window 4 success 0 failure 0.8 fail_cohorts 0.2
feedback 0.25
queue [127.0.0.1]:PORT: limit 20 window 4 success 0.25 failure 0.8 fail_cohorts 0
feedback 0.25
queue [127.0.0.1]:PORT: limit 20 window 4 success 0.25 failure 0.55 fail_cohorts 0.25
feedback 0.25
queue [127.0.0.1]:PORT: limit 20 window 4 success 0.25 failure 0.3 fail_cohorts 0.5
feedback 0.25
queue [127.0.0.1]:PORT: limit 20 window 3 success 0 failure 1.05 fail_cohorts 0.75
queue [127.0.0.1]:PORT: limit 20 window 0 success 0 failure 1.05 fail_cohorts 1.08333
"""


MAIL = 18
"""Messages for each case of L{SUSPENSION}."""


class Feedbacks:
    """
    Reads the lines of C{destination_concurrency_feedback_debug}, by destination, as they come.
    """

    _LINE = re.compile(r"qmgr_queue_(?:un)?throttle: (queue \[127\.0\.0\.1\]:(\d+): .*|feedback \S+)")

    def __init__(self, side: Side) -> None:
        self._side = side
        self._lock = threading.Lock()
        self._read = 0
        self._feedback = ""
        self._lines: dict[int, list[str]] = {}

    def lines(self, port: int) -> Sequence[str]:
        """
        @return: the lines about the destination at a port; the C{feedback} line comes before its C{queue}
            line.
        """
        with self._lock:
            log = self._side.log()
            for line, of in self._LINE.findall(log, self._read):
                if not of:
                    self._feedback = line
                    continue
                lines = self._lines.setdefault(int(of), [])
                if self._feedback:
                    lines.append(self._feedback)
                lines.append(line)
                self._feedback = ""
            self._read = len(log)
            return list(self._lines.get(port, ()))

    def wait(self, port: int, count: int) -> None:
        """
        Wait until so many deliveries to a port have had their say.
        """
        wait_until(lambda: len(self.windows(port)) >= count, 10, f"delivery {count} to port {port}")

    def windows(self, port: int) -> Sequence[str]:
        """
        @return: the windows in these lines.
        """
        return re.findall(r" window (\d+) ", "\n".join(self.lines(port)))


def transports(cases: Mapping[str, Mapping[str, object]], sinks: Mapping[str, Sink]) -> dict[str, str]:
    """
    @param cases: by transport: its parameters without the C{<transport>_}.
    @return: main.cf settings; domain C{NAME.test} goes by transport NAME to its sink.
    """
    settings = routes({f"{name}:{name}.test": sinks[name] for name in cases})
    for name, parameters in cases.items():
        settings.update({f"{name}_{suffix}": str(value) for suffix, value in parameters.items()})
    return {**settings, "minimal_backoff_time": "600s", "maximal_backoff_time": "600s"}


def master(names: Mapping[str, object]) -> str:
    """
    @return: lines of master.cf for transports that are all smtp.
    """
    return "".join(f"{name} unix - - n - - smtp\n" for name in names)


def together(play: Callable[[str], object], names: Mapping[str, object]) -> Mapping[str, object]:
    """
    @return: what each case found, all played at once.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(names, pool.map(play, names), strict=True))


def send(side: Side, counts: Mapping[str, int]) -> None:
    """
    Send each case so many messages with one recipient each, in turns.
    """
    for number in range(max(counts.values())):
        for name, count in counts.items():
            if number < count:
                side.send(b"u%d@%s.test" % (number, name.encode()))


class WindowTests(SynchronousTestCase):
    """L{GROWTH}, by our window alone."""

    def test_windows(self) -> None:
        """
        The same sequences, at full use.
        """
        for name, case in GROWTH.items():
            window = Window(
                WindowSettings(
                    initial=case.initial,
                    limit=case.limit,
                    positive=Feedback.parse(case.positive),
                    negative=Feedback.parse(case.negative),
                    cohort_limit=99,
                )
            )
            found = []
            for step in case.script:
                if step == "+":
                    window.succeeded(window.concurrency)
                else:
                    self.assertFalse(window.failed(), name)
                found.append(str(window.concurrency))
            self.assertEqual(" ".join(found), case.windows, name)


class FeedbackTests(SideBySideTestCase):
    """
    What feedback does, seen from the destination and in the lines of
    C{destination_concurrency_feedback_debug}.
    """

    def setUp(self) -> None:
        self.destinations = self.sinks(["said", *GROWTH], hold=Stage.GREETING)
        self.destinations |= self.sinks(UNUSED, hold=Stage.END)
        cases: dict[str, dict[str, object]] = {
            name: {
                "initial_destination_concurrency": case.initial,
                "destination_concurrency_limit": case.limit,
                "destination_concurrency_positive_feedback": case.positive,
                "destination_concurrency_negative_feedback": case.negative,
                "destination_concurrency_failed_cohort_limit": 99,
            }
            for name, case in GROWTH.items()
        }
        for name, unused in UNUSED.items():
            cases[name] = {"initial_destination_concurrency": unused.initial}
        cases["said"] = {
            "destination_concurrency_positive_feedback": "1/concurrency",
            "destination_concurrency_negative_feedback": "1 / concurrency",
        }
        self.settings = transports(cases, self.destinations)
        self.settings["destination_concurrency_feedback_debug"] = "yes"
        self.master = master(cases)

    def check(self, side: Side) -> None:
        """
        Play all cases.
        """
        self.side = side
        self.feedbacks = Feedbacks(side)
        # Enough that the window is in use to the end.
        counts = {
            name: len(case.script) + max(map(int, case.windows.split())) for name, case in GROWTH.items()
        }
        counts["said"] = 12
        counts |= {name: case.kept for name, case in UNUSED.items()}
        send(side, counts)
        expected: dict[str, object] = {
            name: (case.windows, int(case.windows.split()[-1])) for name, case in GROWTH.items()
        }
        expected |= {name: case.windows for name, case in UNUSED.items()}
        expected["said"] = DEBUG.replace("PORT", str(self.destinations["said"].port))
        found = together(self.play, expected)
        for name, wanted in expected.items():
            self.assertEqual(found[name], wanted, name)
        self.assertEqual(
            [line for line in side.lines() if line.startswith("said: ")],
            [
                f"said: said_destination_concurrency_{kind}_feedback feedback type 1 value at 5: 0.2"
                for kind in ("positive", "negative")
            ],
        )

    def play(self, name: str) -> object:
        """
        @return: what a case found.
        """
        if name in UNUSED:
            return self.use(name)
        if name == "said":
            self.steps(name, "+-+----")
            return "".join(f"{line}\n" for line in self.feedbacks.lines(self.destinations[name].port))
        self.steps(name, GROWTH[name].script)
        sink = self.destinations[name]
        # It has as many connections as the window says.
        windows = self.feedbacks.windows(sink.port)
        return " ".join(windows), sink.settled(int(windows[-1]))

    def steps(self, name: str, script: str) -> None:
        """
        Let one connection after the other go.
        """
        sink = self.destinations[name]
        window = 1
        for number, step in enumerate(script, 1):
            wait_until(lambda: len(sink.held()) >= window, 20, f"the window of {name} to be in use")  # noqa: B023
            sink.release(1, None if step == "+" else BUSY)
            self.feedbacks.wait(sink.port, number)
            window = int(self.feedbacks.windows(sink.port)[-1])

    def use(self, name: str) -> str:
        """
        Keep some deliveries open, and let single ones through beside them.
        """
        sink = self.destinations[name]
        kept = UNUSED[name].kept
        sink.wait_held(kept)
        for number in range(1, 8):
            self.side.send(b"single@%s.test" % name.encode())
            wait_until(lambda: len(sink.held()) == kept + 1, 20, f"a single delivery for {name}")
            sink.release(1, skip=kept)
            self.feedbacks.wait(sink.port, number)
        for _ in range(12):
            self.side.send(b"more@%s.test" % name.encode())
        found = self.feedbacks.windows(sink.port)
        sink.wait_held(int(found[-1]))
        # Nothing is said of feedback where none is given.
        given = sum(line.startswith("feedback") for line in self.feedbacks.lines(sink.port))
        self.assertEqual(given, len(set(found)), name)
        return " ".join(found)

    def test_postfix(self) -> None:
        """
        Postfix does what the tables say.
        """
        self.check(self.postfix(self.settings, self.master))

    def test_ours(self) -> None:
        """
        So do we.
        """
        self.check(self.ours(self.settings, self.master))


class RefusalTests(SideBySideTestCase):
    """Destinations that refuse all connections, or those above five."""

    def setUp(self) -> None:
        self.destinations = self.sinks(SUSPENSION, hold=Stage.GREETING)
        self.destinations |= self.sinks(LIMITED, hold=Stage.END, limit=5)
        cases: dict[str, dict[str, object]] = {
            name: {
                "initial_destination_concurrency": case.initial,
                "destination_concurrency_negative_feedback": case.negative,
                "destination_concurrency_failed_cohort_limit": case.cohorts,
            }
            for name, case in SUSPENSION.items()
        }
        for name, limited in LIMITED.items():
            cases[name] = {
                "destination_concurrency_positive_feedback": limited.feedback,
                "destination_concurrency_negative_feedback": limited.feedback,
                "destination_concurrency_failed_cohort_limit": 10,
            }
        self.settings = transports(cases, self.destinations)
        self.master = master(cases)

    def check(self, side: Side) -> None:
        """
        Play all cases.
        """
        send(side, dict.fromkeys(SUSPENSION, MAIL) | dict.fromkeys(LIMITED, 25))
        expected = {name: case.on(side.name) for name, case in SUSPENSION.items()}
        expected |= {name: case.refused for name, case in LIMITED.items()}
        found = together(
            lambda name: self.play(name, [int(each) for each in expected[name].split()]), expected
        )
        for name, wanted in expected.items():
            self.assertEqual(found[name], wanted, name)
        self.assertEqual({self.destinations[name].most for name in LIMITED}, {5})
        self.check_lines(side)

    def play(self, name: str, wanted: Sequence[int]) -> str:
        """
        @param wanted: what should be found at each step; it is waited for.
        @return: what a case found.
        """
        sink = self.destinations[name]
        found = []
        for number, want in enumerate(wanted):
            if name in LIMITED:
                # Let one delivery after the other end.
                if number:
                    sink.release(1)
                sink.settled(5, want)
                found.append(sink.count("refused"))
            else:
                # Refuse one connection after the other.
                if number:
                    sink.release(1, BUSY)
                found.append(sink.settled(want))
        return " ".join(map(str, found))

    def check_lines(self, side: Side) -> None:
        """
        See that there were as many tries as refusals, and what became of the mail that was not tried.
        """
        wanted: Counter[tuple[str, ...]] = Counter()
        for name, case in SUSPENSION.items():
            tries = len(case.on(side.name).split()) - 1
            self.assertEqual(self.destinations[name].count("connect"), tries, name)
            wanted[name, "smtp", "4.3.2", "deferred", REFUSED] = tries
            wanted[name, "error", "4.3.2", "deferred", SUSPENDED] = MAIL - tries

        def lines() -> Counter[tuple[str, ...]]:
            found: Counter[tuple[str, ...]] = Counter()
            for each in side.statuses():
                name = each.to.partition("@")[2].partition(".")[0]
                if name in SUSPENSION:
                    found[name, each.program, each.dsn, each.status, each.text] += 1
            return found

        wait_until(lambda: lines().total() == wanted.total(), 20, "all messages to be deferred")
        self.assertEqual(lines(), +wanted)

    def test_postfix(self) -> None:
        """
        Postfix does what the tables say.
        """
        self.check(self.postfix(self.settings, self.master))

    def test_ours(self) -> None:
        """
        So do we.
        """
        self.check(self.ours(self.settings, self.master))
