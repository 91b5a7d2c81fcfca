"""
Side by side with Postfix: what checks, MIME structure, address mapping and limits make of a message is the
same: replies, envelopes, bytes, and the lines of the log.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.intake_cases import SCENARIOS
from tests.interop.intake_peers import Outcome, Scenario, ours, outcomes, postfix

DIFFERENT: Mapping[tuple[str, str], str] = {
    ("checks", "REDIRECT of several"): "routes",
    ("checks", "BCC and REDIRECT"): "routes",
    ("bcc", "REDIRECT"): "routes",
    ("checks", "body: IGNORE the last line"): "deliveries",
    ("table trouble", "null sender"): "log",
}
"""What of which message is meant to be different: see docs/differences.rst."""


class IntakeTests(SynchronousTestCase):
    """One scenario a test."""

    def compare(self, name: str) -> None:
        """
        @raise FailTest: naming all messages that differ.
        """
        scenario = next(each for each in SCENARIOS if each.name == name)
        with postfix(scenario) as server:
            theirs = outcomes(server, scenario)
        with ours(scenario) as server:
            mine = outcomes(server, scenario)
        different = []
        for case, their in theirs.items():
            difference = _difference(their, mine[case], DIFFERENT.get((name, case), ""))
            if difference:
                different.append(f"{name}: {case}:\n{difference}")
        self.assertEqual(len(different), 0, "\n".join(different))

    def test_number(self) -> None:
        """
        There are as many cases as were promised, and none hides another of the same name.
        """
        names = [(scenario.name, case.name) for scenario in SCENARIOS for case in scenario.cases]
        self.assertGreaterEqual(len(names), 80)
        self.assertEqual(len(names), len(set(names)))


def _difference(their: Outcome, our: Outcome, meant: str) -> str:
    lines = []
    for field in ("reply", "deliveries", "held", "log", "routes"):
        one, other = getattr(their, field), getattr(our, field)
        if one != other and field != meant:
            lines.append(f"  {field}: Postfix {_brief(one)}\n  {field}: ours    {_brief(other)}")
    return "\n".join(lines)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) < 2000 else f"{text[:1000]} ... {text[-1000:]}"


def _add_test(scenario: Scenario) -> None:
    def test(self: IntakeTests) -> None:
        self.compare(scenario.name)

    test.__doc__ = f"{scenario.name}: {len(scenario.cases)} messages."
    setattr(IntakeTests, "test_" + scenario.name.replace(" ", "_"), test)


for each in SCENARIOS:
    _add_test(each)
