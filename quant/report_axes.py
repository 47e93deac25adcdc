"""A logarithmic axis, and figures as the pages of reports write them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1, 2, 5)
# Fewer than these are labelled 1, 2, 5, 10; more have only the powers of ten.
_MAX_LABELS = 6


@dataclass(frozen=True, slots=True)
class LogAxis:
    """A logarithmic axis from ``start`` to ``stop``, both 1, 2 or 5 times a power of ten."""

    start: float
    stop: float

    @classmethod
    def around(cls, values: Iterable[float]) -> "LogAxis":
        """Returns an axis that has room for all values, of which there is one, all positive."""
        found = list(values)
        start, stop = min(found), max(found)
        steps = _steps(math.floor(math.log10(start)) - 1, math.ceil(math.log10(stop)) + 1)
        below = max(step for step in steps if step <= start)
        above = min(step for step in steps if step >= stop and step > below)
        return cls(below, above)

    def place(self, value: float) -> float:
        """Returns where a value stands, from 0 to 1."""
        return math.log(value / self.start) / math.log(self.stop / self.start)

    @property
    def ticks(self) -> list[float]:
        """The values to label, in order."""
        first, last = math.floor(math.log10(self.start)), math.ceil(math.log10(self.stop))
        steps = _steps(first, last)
        found = [step for step in steps if self.start * 0.999 < step < self.stop * 1.001]
        if len(found) <= _MAX_LABELS:
            return found
        powers = [step for step in found if f"{step:e}".startswith("1.")]
        return powers[:: -(-len(powers) // _MAX_LABELS)]


def percent(value: float) -> str:
    """Returns a part of a whole in per cent, with three digits: 0.0123 %, 4.50 %, 123 %."""
    if not math.isfinite(value):
        return "∞"
    return f"{value * 100:#.3g}".removesuffix(".") + " %" if value else "0 %"


def round_percent(value: float) -> str:
    """Returns a round part of a whole in per cent, in few characters: 5 %, 0.001 %, 5e-7 %."""
    shown = f"{value * 100:.3g}" if value >= 0.99e-5 else f"{value * 100:.0e}"
    return shown.replace("e-0", "e-") + " %"


def size(n_bytes: int) -> str:
    """Returns a size in binary units."""
    value, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _steps(first: int, last: int) -> list[float]:
    """Returns 1, 2 and 5 times the powers of ten from 10**first to 10**last, as written."""
    return [float(f"{step}e{power}") for power in range(first, last + 1) for step in _STEPS]
