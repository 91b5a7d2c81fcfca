"""
Delays as Postfix logs them: C{delay=1.5, delays=0.06/1.4/0.01/0}.

Takes seconds, gives text. Pure. What is below the resolution (C{delay_logging_resolution_limit}) is
C{0}; below 100 s two digits count; above, whole seconds; zeros at the end are left out.
"""

from __future__ import annotations


def format_delay(seconds: float, resolution: int = 2) -> str:
    """
    @param seconds: a delay; a negative one (the clock was set back) is C{0}.
    @param resolution: the most digits after the decimal point, 0..6.
    @return: the delay as Postfix writes it.
    """
    if seconds >= 9.95:
        return f"{seconds:.0f}"
    if seconds < 10.0**-resolution:
        return "0"
    digits = 1
    if seconds < 0.995:
        digits = 2
        bound = 0.0995
        while seconds < bound and digits < resolution:
            digits += 1
            bound /= 10
    text = f"{seconds:.{min(digits, resolution)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_delays(
    arrival: float, active: float, started: float, setup: float, ended: float, resolution: int = 2
) -> tuple[str, str]:
    """
    @param arrival: when the message arrived.
    @param active: when it entered the active queue for this attempt.
    @param started: when this delivery began.
    @param setup: seconds of the delivery spent on connection set-up.
    @param ended: when this delivery ended. All but C{setup} are POSIX seconds.
    @param resolution: as in L{format_delay}.
    @return: the values of C{delay=} and C{delays=}.
    """
    total = ended - arrival
    if total < 10.0**-resolution:
        # Most mail of a quick server; a negative total falls here as well.
        return "0", "0/0/0/0"
    setup = min(setup, ended - started)
    return (
        format_delay(total, resolution),
        f"{format_delay(active - arrival, resolution)}/{format_delay(started - active, resolution)}"
        f"/{format_delay(setup, resolution)}/{format_delay(ended - started - setup, resolution)}",
    )
