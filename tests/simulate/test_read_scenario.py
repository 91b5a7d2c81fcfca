"""
A scenario is read, or refused in one line that says what is wrong and what to write.
"""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.simulate.read import load_scenario, scenario_from_text
from qmqpd_tx.simulate.scenario import Above, Shape, Until
from qmqpd_tx.simulate.world import scenario_config
from tests.simulate.published import SCENARIOS

GOOD = """\
[main]
minimal_backoff_time = "5m"
[[destination]]
name = "sink"
[[arrival]]
class = "news"
at = "09:00"
"""


class GoodTests(SynchronousTestCase):
    """What can be said."""

    def test_least(self) -> None:
        """A destination and an arrival are enough."""
        scenario = scenario_from_text(GOOD)
        self.assertEqual(scenario.destinations[0].domains, ["sink.test"])
        self.assertEqual(scenario.arrivals[0].begin, 9 * 3600)
        self.assertEqual(scenario.until, Until.DRAINED)
        self.assertEqual(scenario_config(scenario).seconds("minimal_backoff_time"), 300.0)

    def test_documented(self) -> None:
        """The scenarios of the manual can be used."""
        for path in SCENARIOS.glob("*.toml"):
            scenario_config(load_scenario(path))

    def test_values(self) -> None:
        """Times, rates, distributions and limits are what they look like."""
        text = GOOD.replace(
            'name = "sink"',
            'name = "sink"\ndomains = 3\nlatency.message = { normal = [1, 0.5] }\n'
            'limit = { concurrency = 5, above = "421" }',
        ).replace('at = "09:00"', 'from = "09:00"\nto = "+1 09:00:30"\nrate = "2/hour"')
        scenario = scenario_from_text(text)
        destination, arrival = scenario.destinations[0], scenario.arrivals[0]
        self.assertEqual(destination.domains, ["d1.sink.test", "d2.sink.test", "d3.sink.test"])
        self.assertEqual(destination.message.shape, Shape.NORMAL)
        assert destination.limit is not None
        self.assertEqual(destination.limit.above, Above.REPLY)
        self.assertEqual((arrival.end, arrival.messages), (86400 + 9 * 3600 + 30, 48))

    def test_seed(self) -> None:
        """The command line's seed counts."""
        self.assertEqual(scenario_from_text("seed = 5\n" + GOOD).seed, 5)
        self.assertEqual(scenario_from_text("seed = 5\n" + GOOD, seed=9).seed, 9)

    def test_config_folder(self) -> None:
        """main.cf beside the scenario counts, and the scenario's own parameters over it."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "main.cf").write_text("minimal_backoff_time = 1h\nmaximal_backoff_time = 2h\n")
        path = folder / "day.toml"
        path.write_text('config = "main.cf"\n' + GOOD)
        config = scenario_config(load_scenario(path))
        self.assertEqual(config.seconds("minimal_backoff_time"), 300.0)
        self.assertEqual(config.seconds("maximal_backoff_time"), 7200.0)
        path.write_text('config = "."\n' + GOOD)
        self.assertEqual(scenario_config(load_scenario(path)).seconds("maximal_backoff_time"), 7200.0)


class BadTests(SynchronousTestCase):
    """What is refused."""

    def refused(self, text: str, *words: str) -> None:
        """
        A text is refused in one line with all those words.
        """
        error = self.assertRaises(ConfigError, lambda: scenario_config(scenario_from_text(text, "day.toml")))
        self.assertNotIn("\n", str(error))
        for word in ("day.toml", *words):
            self.assertIn(word, str(error))

    def changed(self, old: str, new: str, *words: str) -> None:
        """
        The good text with a change is refused.
        """
        self.assertIn(old, GOOD)
        self.refused(GOOD.replace(old, new), *words)

    def test_syntax(self) -> None:
        """No TOML: the line is named."""
        self.refused("seed = \n", "line 1", "not TOML")

    def test_nothing(self) -> None:
        """A scenario without mail is none."""
        self.refused("", "[[destination]]", "add")
        self.refused('[[destination]]\nname = "x"\n', "[[arrival]]", "add")

    def test_unknown_key(self) -> None:
        """A slip of the pen is found, with what was meant."""
        self.changed(
            'name = "sink"', 'name = "sink"\ntransprot = "smtp"', "transprot", "did you mean transport"
        )
        self.refused("sede = 1\n" + GOOD, "sede", "did you mean seed")
        self.changed('name = "sink"', 'name = "sink"\nlatency.conect = 1', "latency", "conect", "connect")

    def test_values(self) -> None:
        """Table, key, value and remedy are named."""
        for old, new, words in (
            ('at = "09:00"', 'at = "9 o\'clock"', ("[[arrival]] number 1", "news", "at", "09:00")),
            ('at = "09:00"', 'at = "24:30"', ("at", "24:30")),
            ('at = "09:00"', 'from = "09:00"\nto = "08:00"', ("to", "before")),
            ('at = "09:00"', 'class_ = "x"', ("no time",)),
            ('at = "09:00"', 'at = "09:00"\nmessages = 0', ("messages", "0", "from 1 to")),
            ('at = "09:00"', 'at = "09:00"\nmessages = 3000000', ("messages", "3000000")),
            ('at = "09:00"', 'at = "09:00"\nmessages = 100000\nrecipients = 1000', ("recipients", "at most")),
            ('at = "09:00"', 'at = "09:00"\nto_destination = "sunk"', ("sunk", "sink")),
            ('at = "09:00"', 'from = "09:00"\nto = "10:00"\nrate = "often"', ("rate", "often", "10/minute")),
            ('name = "sink"', 'name = "a b"', ("name", "a b")),
            ('name = "sink"', 'name = "sink"\ndomains = ["a b"]', ("domains", "a b")),
            ('name = "sink"', 'name = "sink"\ndomains = 2000000', ("domains", "2000000")),
            ('name = "sink"', 'name = "sink"\ngreylisting = -1', ("greylisting", "-1")),
            ('name = "sink"', 'name = "sink"\nlimit = { concurrency = 0 }', ("limit", "concurrency", "0")),
            (
                'name = "sink"',
                'name = "sink"\nlimit = { concurrency = 1, above = "x" }',
                ("above", "421", "connect-timeout"),
            ),
            ('name = "sink"', 'name = "sink"\nlatency.message = { gamma = [1, 2] }', ("message", "uniform")),
            (
                'name = "sink"',
                'name = "sink"\nlatency.message = { uniform = [2, 1] }',
                ("message", "smaller"),
            ),
            (
                'name = "sink"',
                'name = "sink"\noutage = [{ from = "10:00", to = "09:00" }]',
                ("outage", "to", "09:00"),
            ),
            (
                'name = "sink"',
                'name = "sink"\nrefusal = [{ probability = 2 }]',
                ("refusal", "probability", "2", "from 0 to 1"),
            ),
            ('name = "sink"', 'name = "sink"\n[[destination]]\nname = "sink"', ("name", "sink", "already")),
        ):
            self.changed(old, new, *words)

    def test_times_within_the_run(self) -> None:
        """Mail that would never come is refused."""
        self.refused('start = "10:00"\n' + GOOD, "at", "before the start")
        self.refused('limit = "1h"\n' + GOOD, "at", "after the end")

    def test_questions(self) -> None:
        """Questions about mail that is not there, or about nothing."""
        self.refused(GOOD + '[[question]]\nclass = "olds"\nby = "10:00"\n', "olds", "news")
        self.refused(GOOD + "[[question]]\n", "[[question]] number 1", "by", "within")

    def test_parameters(self) -> None:
        """A bad main.cf value is told as such."""
        self.changed('"5m"', '"five"', "main", "minimal_backoff_time", "five")
        self.changed('"5m"', "[1]", "main", "minimal_backoff_time")

    def test_unknown_parameters(self) -> None:
        """A misspelled parameter is refused; those of a destination's transport are known."""
        self.changed("minimal_backoff_time", "minimal_backof_time", "main", "minimal_backof_time", "postconf")
        self.changed("minimal_backoff_time", '"\\u001b[2J\\n"', "main", "?[2J?")
        self.changed("minimal_backoff_time", "bulk_destination_rate_delay", "bulk_destination_rate_delay")
        text = GOOD.replace("minimal_backoff_time", "bulk_destination_rate_delay")
        config = scenario_config(
            scenario_from_text(text.replace('name = "sink"', 'name = "sink"\ntransport = "bulk"'))
        )
        self.assertEqual(config.transport_seconds("bulk", "destination_rate_delay"), 300.0)

    def test_huge_values(self) -> None:
        """Numbers and tables that are too large even for a message."""
        for value in ("1" + "0" * 400, "1" + "0" * 5000, "0x" + "f" * 6000, "-0x" + "f" * 6000):
            for key in ("bandwidth", "connect_timeout", "domains", "transport", "latency", "outage", "what"):
                self.changed('name = "sink"', f'name = "sink"\n{key} = {value}', "")
            self.changed('"5m"', value, "")
        deep = ".".join("a" * 3000)
        for key in ("main", "latency", "title", "limit"):
            self.refused(f"{key}.{deep} = 1\n" + GOOD.replace("[main]", "[other]"), "")

    def test_keys(self) -> None:
        """A key is shown cut, and cannot drive a terminal."""
        self.changed('name = "sink"', 'name = "sink"\n"\\u001b[2J\\n" = 1', "?[2J?", "no such key")
        self.refused("x" * 100_000 + " = 1\n" + GOOD, "x" * 60 + "... = 1", "no such key")

    def test_config_is_no_file(self) -> None:
        """What never ends is not read."""
        self.refused('config = "/dev/zero"\n' + GOOD, "config", "/dev/zero", "main.cf")

    def test_files(self) -> None:
        """A file that is not there, is a folder, or no text."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for path in (folder / "none.toml", folder):
            error = self.assertRaises(ConfigError, load_scenario, path)
            self.assertIn(str(path), str(error))
        (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
        self.assertRaises(ConfigError, load_scenario, folder / "binary.toml")

    @settings(max_examples=200)
    @given(
        st.sampled_from(["destination", "arrival", "question", "main", "seed", "limit", "start", "config"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=2),
            max_leaves=4,
        ),
    )
    def test_anything(self, key: str, value: object) -> None:
        """Whatever a key is given, it is taken or refused with one clear error."""
        if value is None:
            return
        try:
            scenario_from_text(f"{key} = {json.dumps(value)}\n")
        except ConfigError as error:
            self.assertNotIn("\n", str(error))
