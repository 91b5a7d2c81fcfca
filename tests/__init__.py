"""
The tests of qmqpd_tx, for trial.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "qmqpd_tx",
    # How long an example takes depends on what else the machine does: that is for benchmarks.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # Continuous integration judges a change, and not the luck of the draw; whoever works on it draws anew.
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("qmqpd_tx")
