"""
The order of deliveries, as a running Postfix was seen to have it.

Each case was run against Postfix 3.7: all messages are in the active queue, held back by a delivery that does not
end; then one delivery after the other ends, and who comes next was written down. C{tests/interop} does it again,
side by side. The notation is C{name:entries}, and C{name*count} for entries that follow each other.
"""

# ruff: noqa: E501

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping

from attrs import field, frozen
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import Entry
from qmqpd_tx.qmgr.scheduling.feedback import WindowSettings
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.scheduling.settings import TransportSettings
from tests.qmgr.scheduling.support import MakeScheduler, many, recipients, runs, take


@frozen
class Case:
    """
    @ivar start: the messages: C{name:entries}, or C{name:entries+entries} with the letter of a destination after
        each number; C{wait:seconds} between them.
    @ivar order: what Postfix did.
    @ivar later: further messages, by how many deliveries must have been begun.
    @ivar width: the window of each destination.
    @ivar stuck: a destination whose deliveries do not end before all others.
    """

    name: str
    start: str
    order: str
    cost: int = 5
    discount: int = 50
    loan: int = 3
    minimum: int = 3
    width: int = 1
    stuck: str = ""
    later: Mapping[int, str] = field(factory=dict)


ONE_DESTINATION = (
    Case(
        "c5",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24",
    ),
    Case(
        "c2",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*2 s2 big*2 s3 big*2 s4 big*2 s5 big*2 s6 big*39",
        cost=2,
    ),
    Case(
        "c3",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*3 s2 big*3 s3 big*3 s4 big*3 s5 big*3 s6 big*34",
        cost=3,
    ),
    Case(
        "c10",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*10 s2 big*10 s3 big*10 s4 big*10 s5 big*9 s6",
        cost=10,
    ),
    Case("c1", "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1", "big*50 s1 s2 s3 s4 s5 s6", cost=1),
    Case("c0", "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1", "big*50 s1 s2 s3 s4 s5 s6", cost=0),
    Case(
        "d0",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24",
        discount=0,
    ),
    Case(
        "d100",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24",
        discount=100,
    ),
    Case(
        "l0",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big*5 s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*20",
        loan=0,
    ),
    Case(
        "l0d0",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big*5 s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*20",
        loan=0,
        discount=0,
    ),
    Case(
        "l1d0",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24",
        loan=1,
        discount=0,
    ),
    Case(
        "l0d100",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24",
        loan=0,
        discount=100,
    ),
    Case(
        "m10",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24",
        minimum=10,
    ),
    Case(
        "m9",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24",
        minimum=9,
    ),
    Case(
        "m0",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24",
        minimum=0,
    ),
    Case(
        "w5",
        "big:50 s1:1 s2:1 s3:1 s4:1 s5:1 s6:1",
        "big s1 big*5 s2 big*5 s3 big*5 s4 big*5 s5 big*5 s6 big*24",
        width=5,
    ),
    Case("doc2", "big:10 x:2 y:2", "big*4 x*2 big*4 y*2 big*2", cost=2, discount=0, loan=0, minimum=3),
    Case("doc3", "big:10 x:2 y:2", "big*2 x*2 big*4 y*2 big*4", cost=2, discount=50, loan=0, minimum=3),
    Case("doc4", "big:10 x:2 y:2", "big*2 x*2 big*4 y*2 big*4", cost=2, discount=0, loan=1, minimum=3),
    Case(
        "c2d0l0n2",
        "big:60 x:2 y:2 z:2",
        "big*4 x*2 big*4 y*2 big*4 z*2 big*48",
        cost=2,
        discount=0,
        loan=0,
        minimum=3,
    ),
    Case(
        "c2d0l0n4",
        "big:60 x:4 y:4 z:4",
        "big*8 x*4 big*8 y*4 big*8 z*4 big*36",
        cost=2,
        discount=0,
        loan=0,
        minimum=3,
    ),
    Case(
        "c2d0l3n2",
        "big:60 x:2 y:2 z:2",
        "big x*2 big*4 y*2 big*4 z*2 big*51",
        cost=2,
        discount=0,
        loan=3,
        minimum=3,
    ),
    Case(
        "c2d0l3n4",
        "big:60 x:4 y:4 z:4",
        "big*2 x*4 big*8 y*4 big*8 z*4 big*42",
        cost=2,
        discount=0,
        loan=3,
        minimum=3,
    ),
    Case(
        "c2d50l0n2",
        "big:60 x:2 y:2 z:2",
        "big*2 x*2 big*4 y*2 big*4 z*2 big*50",
        cost=2,
        discount=50,
        loan=0,
        minimum=3,
    ),
    Case(
        "c2d50l0n4",
        "big:60 x:4 y:4 z:4",
        "big*4 x*4 big*8 y*4 big*8 z*4 big*40",
        cost=2,
        discount=50,
        loan=0,
        minimum=3,
    ),
    Case(
        "c2d50l3n2",
        "big:60 x:2 y:2 z:2",
        "big x*2 big*4 y*2 big*4 z*2 big*51",
        cost=2,
        discount=50,
        loan=3,
        minimum=3,
    ),
    Case(
        "c2d50l3n4",
        "big:60 x:4 y:4 z:4",
        "big x*4 big*8 y*4 big*8 z*4 big*43",
        cost=2,
        discount=50,
        loan=3,
        minimum=3,
    ),
    Case(
        "c2d100l0n2",
        "big:60 x:2 y:2 z:2",
        "big x*2 big*4 y*2 big*4 z*2 big*51",
        cost=2,
        discount=100,
        loan=0,
        minimum=3,
    ),
    Case(
        "c2d100l0n4",
        "big:60 x:4 y:4 z:4",
        "big x*4 big*8 y*4 big*8 z*4 big*43",
        cost=2,
        discount=100,
        loan=0,
        minimum=3,
    ),
    Case(
        "c2d100l3n2",
        "big:60 x:2 y:2 z:2",
        "big x*2 big*4 y*2 big*4 z*2 big*51",
        cost=2,
        discount=100,
        loan=3,
        minimum=3,
    ),
    Case(
        "c2d100l3n4",
        "big:60 x:4 y:4 z:4",
        "big x*4 big*8 y*4 big*8 z*4 big*43",
        cost=2,
        discount=100,
        loan=3,
        minimum=3,
    ),
    Case(
        "c5d0l0n2",
        "big:60 x:2 y:2 z:2",
        "big*10 x*2 big*10 y*2 big*10 z*2 big*30",
        cost=5,
        discount=0,
        loan=0,
        minimum=3,
    ),
    Case(
        "c5d0l0n4",
        "big:60 x:4 y:4 z:4",
        "big*20 x*4 big*20 y*4 big*20 z*4",
        cost=5,
        discount=0,
        loan=0,
        minimum=3,
    ),
    Case(
        "c5d0l3n2",
        "big:60 x:2 y:2 z:2",
        "big x*2 big*10 y*2 big*10 z*2 big*39",
        cost=5,
        discount=0,
        loan=3,
        minimum=3,
    ),
    Case(
        "c5d0l3n4",
        "big:60 x:4 y:4 z:4",
        "big*5 x*4 big*20 y*4 big*20 z*4 big*15",
        cost=5,
        discount=0,
        loan=3,
        minimum=3,
    ),
    Case(
        "c5d50l0n2",
        "big:60 x:2 y:2 z:2",
        "big*5 x*2 big*10 y*2 big*10 z*2 big*35",
        cost=5,
        discount=50,
        loan=0,
        minimum=3,
    ),
    Case(
        "c5d50l0n4",
        "big:60 x:4 y:4 z:4",
        "big*10 x*4 big*20 y*4 big*20 z*4 big*10",
        cost=5,
        discount=50,
        loan=0,
        minimum=3,
    ),
    Case(
        "c5d50l3n2",
        "big:60 x:2 y:2 z:2",
        "big x*2 big*10 y*2 big*10 z*2 big*39",
        cost=5,
        discount=50,
        loan=3,
        minimum=3,
    ),
    Case(
        "c5d50l3n4",
        "big:60 x:4 y:4 z:4",
        "big x*4 big*20 y*4 big*20 z*4 big*19",
        cost=5,
        discount=50,
        loan=3,
        minimum=3,
    ),
    Case(
        "c5d100l0n2",
        "big:60 x:2 y:2 z:2",
        "big x*2 big*10 y*2 big*10 z*2 big*39",
        cost=5,
        discount=100,
        loan=0,
        minimum=3,
    ),
    Case(
        "c5d100l0n4",
        "big:60 x:4 y:4 z:4",
        "big x*4 big*20 y*4 big*20 z*4 big*19",
        cost=5,
        discount=100,
        loan=0,
        minimum=3,
    ),
    Case(
        "c5d100l3n2",
        "big:60 x:2 y:2 z:2",
        "big x*2 big*10 y*2 big*10 z*2 big*39",
        cost=5,
        discount=100,
        loan=3,
        minimum=3,
    ),
    Case(
        "c5d100l3n4",
        "big:60 x:4 y:4 z:4",
        "big x*4 big*20 y*4 big*20 z*4 big*19",
        cost=5,
        discount=100,
        loan=3,
        minimum=3,
    ),
    Case("rec1", "big:200 mid:20 sml:2 s1:1", "big s1 big*5 sml*2 big*44 mid*20 big*150"),
    Case(
        "rec2",
        "big:200 mid:20 sml:2 s1:1 s2:1 s3:1",
        "big s1 big*2 s2 big*2 s3 big*2 sml*2 big*17 mid*20 big*176",
        cost=2,
    ),
    Case(
        "rec3",
        "big:200 mid:50 ten:10 two:2 s1:1 s2:1 s3:1",
        "big s1 big*2 s2 big*2 s3 big*2 two*2 big*7 ten*10 big*60 mid*50 big*126",
        cost=2,
    ),
    Case(
        "rec4",
        "big:200 mid:50 ten:10 two:2 s1:1 s2:1 s3:1",
        "big s1 big*5 s2 big*5 s3 big*5 two*2 big*19 ten*10 big*165 mid*50",
    ),
    Case(
        "sizes",
        "big:200 s1:1 s2:1 s3:1 t1:2 t2:2 ten:10 u1:1 u2:1 u3:1",
        "big s1 big*5 s2 big*5 s3 big*5 u1 big*5 u2 big*5 u3 big*5 t1*2 big*10 t2*2 big*19 ten*10 big*140",
    ),
    Case("min5", "big:5 s1:1", "big*5 s1", loan=3),
    Case("min10", "big:10 s1:1", "big*10 s1", loan=3),
    Case("min14", "big:14 s1:1", "big*14 s1", loan=3),
    Case("min15", "big:15 s1:1", "big s1 big*14", loan=3),
    Case("min16", "big:16 s1:1", "big s1 big*15", loan=3),
    Case("min25", "big:25 s1:1", "big s1 big*24", loan=3),
    Case("mn0e2", "big:2 s1:1", "big*2 s1", minimum=0),
    Case("mn0e4", "big:4 s1:1", "big*4 s1", minimum=0),
    Case("mn0e5", "big:5 s1:1", "big s1 big*4", minimum=0),
    Case("mn0e6", "big:6 s1:1", "big s1 big*5", minimum=0),
    Case("mn1e4", "big:4 s1:1", "big*4 s1", minimum=1),
    Case("mn1e5", "big:5 s1:1", "big s1 big*4", minimum=1),
    Case("mn1e6", "big:6 s1:1", "big s1 big*5", minimum=1),
    Case("fit10", "big:60 x:10", "big*50 x*10 big*10", loan=0, discount=0),
    Case("fit11", "big:60 x:11", "big*55 x*11 big*5", loan=0, discount=0),
    Case("fit12", "big:60 x:12", "big*60 x*12", loan=0, discount=0),
    Case("fit13", "big:60 x:13", "big*60 x*13", loan=0, discount=0),
    Case("fitl10", "big:60 x:10", "big*10 x*10 big*50"),
    Case("fitl11", "big:60 x:11", "big*15 x*11 big*45"),
    Case("fitl12", "big:60 x:12", "big*15 x*12 big*45"),
    Case("fitl13", "big:60 x:13", "big*60 x*13"),
    Case("fitl20", "big:60 x:20", "big*60 x*20"),
    Case(
        "late1",
        "big:100",
        "big*20 s1 s2 s3 big*17 two*2 ten*10 big*39 u1 big*5 u2 big*19",
        later={20: "s1:1 s2:1 s3:1", 40: "two:2 ten:10", 60: "u1:1 u2:1"},
    ),
    Case(
        "late2",
        "big:100",
        "big*20 s1 s2 s3 big*17 two*2 ten*10 big*8 u1 u2 big*55",
        cost=2,
        later={20: "s1:1 s2:1 s3:1", 40: "two:2 ten:10", 60: "u1:1 u2:1"},
    ),
    Case(
        "nest1",
        "big:200 mid:30",
        "big*24 mid*21 t*3 mid*2 s1 s2 mid*7 big*37 u1 big*2 u2 big*2 u3 big*135",
        cost=2,
        later={45: "t:3", 50: "s1:1 s2:1", 70: "u1:1 u2:1 u3:1"},
    ),
    Case(
        "nest2",
        "big:200 mid:30",
        "big*60 mid*20 t*3 mid*2 s1 s2 mid*8 big*91 u1 big*5 u2 big*5 u3 big*39",
        later={80: "t:3", 85: "s1:1 s2:1", 120: "u1:1 u2:1 u3:1"},
    ),
    Case("age1", "big:100 two:2 wait:3 s1:1 s2:1", "big two*2 big*10 s1 big*5 s2 big*84"),
    Case("age2", "big:100 two:2 s1:1 s2:1", "big s1 big*5 s2 big*5 two*2 big*89"),
    Case("age3", "big:100 five:5 wait:4 s1:1 s2:1", "big five*5 big*25 s1 big*5 s2 big*69"),
    Case("tie", "big:100 x:2 y:2 s:1 z:2", "big s big*5 x*2 big*10 y*2 big*10 z*2 big*74"),
)

MORE_DESTINATIONS = (
    Case(
        "two1",
        "big:30a+30b sa1:1a sa2:1a sa3:1a sb1:1b sb2:1b sb3:1b",
        "big/a big/b sa1/a big/b big/a big/b big/a big/b sa2/a big/b big/a big/b big/a big/b sa3/a big/b big/a big/b big/a sb1/b big/a big/b big/a big/b big/a sb2/b big/a big/b big/a big/b big/a sb3/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b",
    ),
    Case(
        "two2",
        "big:30a+30b sa1:1a sa2:1a sa3:1a sb1:1b sb2:1b sb3:1b",
        "big/a big/b sa1/a big/b sa2/a big/b big/a big/b sa3/a big/b big/a sb1/b big/a sb2/b big/a big/b big/a sb3/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b",
        cost=2,
    ),
    Case(
        "two3",
        "x:10a y:10b sa1:1a sa2:1a sb1:1b sb2:1b",
        "x/a y/b x/a y/b x/a y/b x/a y/b x/a y/b x/a y/b x/a y/b x/a y/b x/a y/b x/a y/b sa1/a sb1/b sa2/a sb2/b",
    ),
    Case(
        "stk1",
        "bigb:30b biga:30a sa1:1a sa2:1a sa3:1a sb1:1b sb2:1b sb3:1b",
        "biga/a sa1/a biga/a*5 sa2/a biga/a*5 sa3/a biga/a*19 bigb/b sb1/b bigb/b*5 sb2/b bigb/b*5 sb3/b bigb/b*19",
        stuck="b",
    ),
    Case(
        "stk2",
        "bigb:30b biga:30a sa1:1a sa2:1a sa3:1a sb1:1b sb2:1b sb3:1b",
        "biga/a sa1/a biga/a*2 sa2/a biga/a*2 sa3/a biga/a*25 bigb/b sb1/b bigb/b*2 sb2/b bigb/b*2 sb3/b bigb/b*25",
        cost=2,
        stuck="b",
    ),
    Case(
        "stk3",
        "big:30b+30a sa1:1a sa2:1a sa3:1a sb1:1b sb2:1b sb3:1b ab:1a+1b",
        "big/a sa1/a big/a*2 sa2/a big/a*2 sa3/a big/a*8 ab/a big/a*17 sb1/b sb2/b sb3/b ab/b big/b*30",
        cost=2,
        stuck="b",
    ),
    Case(
        "stk4",
        "big:30b mid:20a+20b sa1:1a sa2:1a sa3:1a ab:1a+1b sb1:1b sb2:1b sb3:1b",
        "mid/a sa1/a mid/a*2 sa2/a mid/a*2 sa3/a mid/a*8 ab/a mid/a*7 big/b sb1/b big/b*2 sb2/b big/b*2 sb3/b big/b*2 ab/b big/b*23 mid/b*20",
        cost=2,
        stuck="b",
    ),
    Case(
        "thr1",
        "big:10a+30b+20c m2:2a+2b+2c s:1c",
        "big/a big/b s/c big/a big/b big/c big/a m2/b m2/c m2/a m2/b m2/c m2/a big/b big/c big/a big/b big/c big/a big/b big/c big/a big/b big/c big/a big/b big/c big/a big/b big/c big/a big/b big/c big/a big/b big/c big/b big/c big/b big/c big/b big/c big/b big/c big/b big/c big/b big/c big/b big/c big/b big/c big/b big/c big/b big/c big/b big/c big/b*9",
    ),
    Case("rem1", "big:60b m:10a+1b", "m/a*10 big/b*2 m/b big/b*58", cost=2, loan=0, discount=0, stuck="b"),
    Case(
        "rem2",
        "big:60b m:10a+1b sb:1b",
        "m/a*10 big/b*2 sb/b big/b*2 m/b big/b*56",
        cost=2,
        loan=0,
        discount=0,
        stuck="b",
    ),
    Case(
        "rem4",
        "big:60b m:1a+1b sb:1b",
        "m/a big/b*2 sb/b big/b*2 m/b big/b*56",
        cost=2,
        loan=0,
        discount=0,
        stuck="b",
    ),
    Case(
        "rem5",
        "big:60b m:1a+2b sb:1b",
        "m/a big/b*2 sb/b big/b*4 m/b*2 big/b*54",
        cost=2,
        loan=0,
        discount=0,
        stuck="b",
    ),
    Case("rem6", "big:20b m:10a+1b", "m/a*10 big/b*2 m/b big/b*18", cost=2, loan=0, discount=0, stuck="b"),
    Case("rem7", "big:22b m:10a+1b", "m/a*10 big/b*2 m/b big/b*20", cost=2, loan=0, discount=0, stuck="b"),
    Case(
        "rem8",
        "big:60b m:10a+10b sa1:1a sa2:1a sa3:1a sb1:1b sb2:1b sb3:1b",
        "m/a*2 sa1/a m/a*2 sa2/a m/a*2 sa3/a m/a*4 big/b*2 sb1/b big/b*2 sb2/b big/b*2 sb3/b big/b*20 m/b*10 big/b*34",
        cost=2,
        loan=0,
        discount=0,
        stuck="b",
    ),
)

OLD = (
    Case("o1", "big:30a s1:1a s2:1a s3:1a", "big/a*30 s1/a s2/a s3/a"),
    Case(
        "o2",
        "big:10a+10b sa1:1a sa2:1a sa3:1a sb1:1b sb2:1b sb3:1b",
        "big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b big/a big/b sa1/a sb1/b sa2/a sb2/b sa3/a sb3/b",
    ),
    Case("o3", "big:20a m2:5a s1:1a", "big/a*20 m2/a*5 s1/a", width=5),
    Case(
        "o4",
        "bigb:10b biga:10a sa1:1a sa2:1a sa3:1a sb1:1b sb2:1b sb3:1b",
        "biga/a*10 sa1/a sa2/a sa3/a bigb/b*10 sb1/b sb2/b sb3/b",
        stuck="b",
    ),
)


class Play:
    """One case, run on a scheduler."""

    def __init__(self, case: Case, make: MakeScheduler) -> None:
        self.case = case
        kind = TransportSettings(
            WindowSettings(initial=case.width, limit=case.width),
            recipient_limit=1000,
            slot_cost=case.cost,
            slot_discount=case.discount,
            slot_loan=case.loan,
            minimum_slots=case.minimum,
        )
        self.subject = make(lambda name: kind, None)
        self.now = 0.0
        self.serial = 0
        self.order: list[str] = []
        self.held: defaultdict[str, deque[Entry]] = defaultdict(deque)
        self.released: defaultdict[str, int] = defaultdict(int)

    def run(self) -> str:
        """
        @return: the order.
        """
        letters = "".join(
            sorted({letter for letter in self.case.start if letter in "abc"} if self.lettered else {"a"})
        )
        for letter in letters:
            for _ in range(self.case.width):
                self.send(f"plug:1{letter}" if self.lettered else "plug:1")
            self.pull()
        self.order.clear()
        self.send(self.case.start)
        self.now += 0.3
        later = dict(self.case.later)
        while open_ones := [letter for letter in self.held if self.held[letter]]:
            letter = min(open_ones, key=lambda each: (each == self.case.stuck, self.released[each], each))
            self.subject.done(self.held[letter].popleft(), None, self.now)
            self.released[letter] += 1
            self.pull()
            for count in [count for count in later if len(self.order) >= count]:
                self.send(later.pop(count))
                self.now += 0.3
        return runs(self.order)

    @property
    def lettered(self) -> bool:
        """Whether there are several destinations."""
        return "/" in self.case.order

    def send(self, mails: str) -> None:
        """Messages become active."""
        for mail in mails.split():
            name, _, parts = mail.partition(":")
            if name == "wait":
                self.now += float(parts)
                continue
            self.now += 0.005
            self.serial += 1
            job = (name, self.serial)
            sizes = [
                (part[-1], int(part[:-1])) if self.lettered else ("a", int(part)) for part in parts.split("+")
            ]
            total = sum(size for _, size in sizes)
            self.subject.begin(job, self.now, total)
            self.subject.refilled(job, total, False, self.now)
            for letter, size in sizes:
                for number in range(size):
                    self.subject.add(job, "smtp", letter, many(1, first=number), self.now)

    def pull(self) -> None:
        """Begin what may be begun."""
        while (entry := self.subject.next(self.now)) is not None:
            self.now += 0.002
            letter = entry.destination.nexthop
            self.order.append(f"{entry.job[0]}/{letter}" if self.lettered else entry.job[0])
            self.held[letter].append(entry)


class PostfixTests(SynchronousTestCase):
    """The same order as Postfix."""

    def check(self, cases: tuple[Case, ...], make: MakeScheduler) -> None:
        """All that differ are told."""
        seen = {case.name: Play(case, make).run() for case in cases}
        wanted = {case.name: case.order for case in cases}
        self.maxDiff = None
        self.assertEqual(seen, wanted)

    def test_preemption(self) -> None:
        """Slots: cost, discount, loan, minimum; candidates, ages, nesting, mail that comes later."""
        self.check(ONE_DESTINATION, PreemptiveScheduler)

    def test_blockers(self) -> None:
        """Several destinations, full ones and one that is stuck."""
        self.check(MORE_DESTINATIONS, PreemptiveScheduler)

    def test_old(self) -> None:
        """The old scheduler: one destination after the other, first come, first served."""
        self.check(OLD, RoundRobinScheduler)


class MutualTests(SynchronousTestCase):
    """Jobs that may overtake each other."""

    def test_comes_to_an_end(self) -> None:
        """
        Two messages with much credit and one entry each for a destination that opens: one of them gets it.
        (They once paid each other back what they had paid, for ever.)
        """
        kind = TransportSettings(
            WindowSettings(limit=1), recipient_limit=1, slot_cost=2, minimum_slots=0, slot_discount=100
        )
        subject = PreemptiveScheduler(lambda name: kind)
        for job, first in (("plug", "z"), ("a", "abcdez"), ("b", "fghijz")):
            batch = recipients(*[f"{letter}@d.test" for letter in first])
            subject.begin(job, 0.0, len(batch))
            subject.refilled(job, len(batch), False, 0.0)
            subject.add(job, "smtp", "relay", batch, 0.0)
        under_way = take(subject)
        self.assertEqual(runs([entry.job for entry in under_way]), "plug a*5 b*5")
        subject.done(under_way[0], None, 1.0)
        entry = subject.next(1.0)
        assert entry is not None
        self.assertIn(entry.job, ("a", "b"))
