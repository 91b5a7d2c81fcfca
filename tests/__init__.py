"""
The tests of qmqpd_tx, for trial.
"""

from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does: that is for benchmarks.
settings.register_profile("qmqpd_tx", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qmqpd_tx")
