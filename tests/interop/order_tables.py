"""
The order of deliveries in a running Postfix 3.7: scenarios, and what its sink saw.

C{big*4 s1} are four deliveries of the message C{big} and then one of C{s1}; where there are several
destinations, C{big/a} says which. In the tables of slices C{90-99 80-89} are the numbers of the recipients in
the order of their delivery: each slice that is read is sorted, and C{big} has its recipients in descending
order, so that a new slice begins where the numbers fall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits
from tests.interop.order_cases import Mail, Scenario, singles


@frozen
class Case:
    """
    @ivar order: of which messages the deliveries are.
    @ivar slices: the numbers of the recipients, where that matters.
    @ivar limits: the recipient limits of the whole queue manager.
    """

    scenario: Scenario
    order: str
    slices: str = ""
    limits: RecipientLimits = field(factory=RecipientLimits)

    def parameters(self) -> dict[str, str]:
        """
        @return: main.cf parameters of the whole queue manager.
        """
        if self.limits == RecipientLimits():
            return {}
        return {
            "qmgr_message_recipient_limit": str(self.limits.limit),
            "qmgr_message_recipient_minimum": str(self.limits.minimum),
            # Postfix raises the recipient limit to this one.
            "qmgr_message_active_limit": str(self.limits.limit),
            "qmgr_fudge_factor": str(self.limits.fudge_factor),
        }


def mail(name: str, pause: float = 0.0, backwards: bool = False, **recipients: int) -> Mail:
    """
    @return: a message with so many recipients at each destination.
    """
    return Mail(name, recipients, pause, backwards)


def slots(cost: int = 5, discount: int = 50, loan: int = 3, minimum: int = 3) -> Mapping[str, int]:
    """
    @return: the settings of preemption; Postfix's defaults if not given.
    """
    return {
        "delivery_slot_cost": cost,
        "delivery_slot_discount": discount,
        "delivery_slot_loan": loan,
        "minimum_delivery_slots": minimum,
    }


def _hundred(name: str, settings: Mapping[str, int], order: str, width: int = 1) -> Case:
    start = [mail("big", a=100), *singles(6)]
    return Case(Scenario(name, start, settings, width=width), order)


_EVERY_FIFTH = "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24"

SINGLES: Sequence[Case] = [
    _hundred("usual", {}, _EVERY_FIFTH),
    _hundred("wide", {}, _EVERY_FIFTH, width=5),
    _hundred("cost2", slots(cost=2), "big s1 big*2 s2 big*2 s3 big*2 s4 big*2 s5 big*2 s6 big*39"),
    _hundred("cost10", slots(cost=10), "big s1 big*10 s2 big*10 s3 big*10 s4 big*10 s5 big*9 s6"),
    _hundred("cost1", slots(cost=1), "big*50 s1 s2 s3 s4 s5 s6"),
    _hundred("cost0", slots(cost=0), "big*50 s1 s2 s3 s4 s5 s6"),
    _hundred(
        "noloan", slots(loan=0), "big*5 s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*20"
    ),
    _hundred("gift", slots(loan=0, discount=100), _EVERY_FIFTH),
    Case(
        Scenario("wholebig", [mail("big", a=2000), *singles(6)], limit=50),
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*14",
    ),
]  # fmt: skip
"""A large message, then single ones; one destination."""


def _three(name: str, settings: Mapping[str, int], size: int, order: str) -> Case:
    start = [mail("big", a=120), *(mail(each, a=2 * size) for each in "xyz")]
    return Case(Scenario(name, start, settings), order)


SIZES: Sequence[Case] = [
    # SCHEDULER_README's example, in deliveries.
    Case(
        Scenario("readme1", [mail("big", a=20), mail("x", a=4), mail("y", a=4)], slots(2, 0, 0)),
        "big*4 x*2 big*4 y*2 big*2",
    ),
    Case(
        Scenario("readme2", [mail("big", a=20), mail("x", a=4), mail("y", a=4)], slots(2, 50, 0)),
        "big*2 x*2 big*4 y*2 big*4",
    ),
    _three("twos", {}, 2, "big x*2 big*10 y*2 big*10 z*2 big*39"),
    _three("fours", {}, 4, "big x*4 big*20 y*4 big*20 z*4 big*19"),
    _three("loan", slots(discount=0), 4, "big*5 x*4 big*20 y*4 big*20 z*4 big*15"),
    _three("discount", slots(loan=0), 4, "big*10 x*4 big*20 y*4 big*20 z*4 big*10"),
    _three("neither", slots(2, 0, 0), 4, "big*8 x*4 big*8 y*4 big*8 z*4 big*36"),
    Case(Scenario("min14", [mail("big", a=28), *singles(1)]), "big*14 s1"),
    Case(Scenario("min15", [mail("big", a=30), *singles(1)]), "big s1 big*14"),
    Case(Scenario("none4", [mail("big", a=8), *singles(1)], slots(minimum=0)), "big*4 s1"),
    Case(Scenario("none5", [mail("big", a=10), *singles(1)], slots(minimum=0)), "big s1 big*4"),
    Case(Scenario("fits", [mail("big", a=120), mail("x", a=24)]), "big*15 x*12 big*45"),
    Case(Scenario("unfit", [mail("big", a=120), mail("x", a=26)]), "big*60 x*13"),
]
"""Messages of several sizes; one destination."""

NESTED: Sequence[Case] = [
    Case(
        Scenario(
            "every",
            [mail("big", a=400), mail("mid", a=40), mail("small", a=4), *singles(1)],
            settle=2.2,
        ),
        "big s1 big*5 small*2 big*44 mid*20 big*150",
    ),
    Case(
        Scenario(
            "saved",
            [mail("big", a=200)],
            later={20: singles(3), 40: [mail("two", a=4), mail("ten", a=20)], 60: singles(2, name="u")},
        ),
        "big*20 s1 s2 s3 big*17 two*2 ten*10 big*39 u1 big*5 u2 big*19",
    ),
    Case(
        Scenario(
            "inner",
            [mail("big", a=400), mail("mid", a=60)],
            slots(cost=2),
            {45: [mail("three", a=6)], 50: singles(2), 70: singles(3, name="u")},
        ),
        "big*24 mid*21 three*3 mid*2 s1 s2 mid*7 big*37 u1 big*2 u2 big*2 u3 big*135",
    ),
    Case(
        Scenario("old", [mail("big", a=200), mail("two", a=4), mail("s1", 2.0, a=1), mail("s2", a=1)]),
        "big two*2 big*10 s1 big*5 s2 big*84",
    ),
]
"""Messages that come while others are under way, that overtake one that overtook, and that are older."""

_SINGLES = [*singles(3, "a", "sa"), *singles(3, "b", "sb")]

DESTINATIONS: Sequence[Case] = [
    Case(
        Scenario("pair", [mail("big", a=30, b=30), *_SINGLES], slots(cost=2)),
        "big/a big/b sa1/a big/b sa2/a big/b big/a big/b sa3/a big/b big/a sb1/b big/a sb2/b "
        "big/a big/b big/a sb3/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b "
        "big/a big/b big/a big/b big/a big/b",
    ),
    Case(
        Scenario("closed", [mail("bigb", b=60), mail("biga", a=60), *_SINGLES], stuck="b"),
        "biga/a sa1/a biga/a*5 sa2/a biga/a*5 sa3/a biga/a*19 "
        "bigb/b sb1/b bigb/b*5 sb2/b bigb/b*5 sb3/b bigb/b*19",
    ),
    Case(
        Scenario("half", [mail("big", b=60), mail("mid", a=40, b=40), *_SINGLES], slots(cost=2), stuck="b"),
        "mid/a sa1/a mid/a*2 sa2/a mid/a*2 sa3/a mid/a*15 "
        "big/b sb1/b big/b*2 sb2/b big/b*2 sb3/b big/b*25 mid/b*20",
    ),
    Case(
        # The half that is delivered counts when candidates are compared, not when they are paid for.
        Scenario(
            "rest",
            [mail("big", b=120), mail("m", a=2, b=2), mail("sb", b=1)],
            slots(2, 0, 0),
            stuck="b",
            settle=2.2,
        ),
        "m/a big/b*2 sb/b big/b*2 m/b big/b*56",
    ),
    Case(
        Scenario(
            "turns", [mail("big", a=20, b=60, c=40), mail("mid", a=4, b=4, c=4), mail("s", c=1)]
        ),
        "big/a big/b s/c big/a big/b big/c big/a mid/b mid/c mid/a mid/b mid/c mid/a "
        + "big/b big/c big/a " * 7
        + "big/b big/c " * 12
        + "big/b*9",
    ),
]  # fmt: skip
"""Several destinations; one at its limit."""


def _sliced(
    name: str,
    start: Sequence[Mail],
    order: str,
    slices: str,
    limit: int = 2,
    limits: RecipientLimits | None = None,
    **settings: int,
) -> Case:
    pools = {"recipient_limit": 50, "extra_recipient_limit": 0, **settings}
    return Case(Scenario(name, start, pools, limit=limit), order, slices, limits or RecipientLimits(50, 10))


_BIG = mail("big", backwards=True, a=400)


def _downto(first: int, step: int) -> str:
    """The slices of C{step} recipients below C{first}."""
    return " ".join(
        f"{max(end - step + 1, 0)}-{end}" for end in range(first, -1, -step)
    )  # fmt: skip


SLICES: Sequence[Case] = [
    _sliced("full", [_BIG], "big*13", "351-399 291-350 231-290 171-230 111-170 51-110 0-50", limit=50),
    _sliced("refill", [_BIG], "big*200", "351-399 340-350 " + _downto(339, 10), recipient_refill_limit=10),
    _sliced(
        "between",
        [_BIG, *singles(6)],
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*174",
        "351-352 s1 353-362 s2 363-372 s3 373-382 s4 383-392 s5 393-399 340-342 s6 343-350 "
        + _downto(339, 10),
        recipient_refill_limit=10,
    ),
]
"""Recipient pools of 50: which recipients are read when."""

READ_FIRST: Sequence[Case] = [
    _sliced(
        "least",
        [_BIG],
        "big*200",
        "351-399 " + _downto(350, 10),
        limits=RecipientLimits(50, 5),
        recipient_refill_limit=10,
    ),
    _sliced(
        "unknown",
        [mail("big", backwards=True, a=2000), *singles(6)],
        "big*3 s1 big*6 s2 big*4 s3 big*6 s4 big*4 s5 big*6 s6 big*37",
        "1951-1999 1891-1950 s1 1831-1890 1771-1830 1711-1770 s2 1651-1710 1591-1650 s3 1531-1590 1471-1530 "
        "1411-1470 s4 1351-1410 1291-1350 s5 1231-1290 1171-1230 1111-1170 s6 " + _downto(1110, 60),
        limit=50,
        extra_recipient_limit=1000,
    ),
    _sliced(
        "filled",
        [mail("big", backwards=True, a=2000), *singles(2)],
        "big*4 s1 big*5 s2 big*31",
        "1951-1999 1940-1950 1890-1939 1840-1889 1790-1829 s1 1830-1839 1740-1789 1690-1739 1640-1689 "
        "1590-1639 1540-1579 s2 1580-1589 " + _downto(1539, 50),
        limit=50,
        recipient_refill_limit=10,
    ),
]
"""
Where it matters that Postfix stops for a read before it chooses an entry, so that an entry that is not full
is filled up first. We read beside the deliveries, and do not wait: the entry goes as it is.
"""

OLD: Sequence[Case] = [
    Case(Scenario("old1", [mail("big", a=60), *singles(3)]), "big*30 s1 s2 s3"),
    Case(
        Scenario("old2", [mail("big", a=20, b=20), *_SINGLES]),
        "big/a big/b " * 10 + "sa1/a sb1/b sa2/a sb2/b sa3/a sb3/b",
    ),
    Case(Scenario("old3", [mail("big", a=40), mail("mid", a=10), *singles(1)], width=5), "big*20 mid*5 s1"),
    Case(
        Scenario("old4", [mail("bigb", b=20), mail("biga", a=20), *_SINGLES], stuck="b"),
        "biga/a*10 sa1/a sa2/a sa3/a bigb/b*10 sb1/b sb2/b sb3/b",
    ),
    Case(
        Scenario("old5", [mail("big", a=20), mail("two", a=4)], later={3: singles(2)}), "big*10 two*2 s1 s2"
    ),
]
"""The same with C{oqmgr}."""


def _fudged(name: str, factor: int, order: str, slices: str, limit: int = 2) -> Case:
    start = [mail("big", backwards=True, a=200)]
    scenario = Scenario(name, start, later={5: singles(2)}, limit=limit)
    return Case(scenario, order, slices, RecipientLimits(50, 10, fudge_factor=factor))


FUDGED: Sequence[Case] = [
    _fudged("all", 100, "big*25 s1 s2 big*75", "150-199 s1 s2 " + _downto(149, 50)),
    _fudged("tenth", 10, "big*6 s1 s2 big*114", "195-199 190-194 s1 s2 " + _downto(189, 5)),
]
"""C{qmgr_fudge_factor} with C{oqmgr}: what part of the recipient limit one message may use."""
