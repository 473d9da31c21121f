"""How far from normal is too far, for each span.

A span's `scale` is the largest of what four views of its reference say, so that a reading has to be unusual in every
one of them:

1. Robust standard deviation (MAD), unless the values are bounded, as those of a daily cycle are: there a MAD promises
   tails that do not exist, and LIGHT_TIMES the distance of the outer 2 % is far.
2. What has been seen: a reading less than about 1.6 times as far out as the outer 1 % (10 % for averages) is not new.
   That is how regular bursts and on-off cycles are learned.
3. Heavy tails, for single readings: the outer 10 % and 2 % are continued as an exponential tail (peaks over threshold,
   Pickands 1975), which reaches the limit at about one reading in a million.
4. The other spans: single readings spread at least as far as their averages (so a long memory of slow wandering calms
   the short one), and averages of `n` at least as far as single readings / sqrt(n) (independent noise spreads no less).

Single readings also spread at least by the series' resolution, the smallest step it ever made: six steps of a rounded,
otherwise constant value are noise, whatever the unit. Of a series that never changed, the last digit it is written
with takes the place of the smallest step.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import sqrt
from typing import NamedTuple

from anomaly.reference import Reference

SMALL_SAMPLE = 8.0
"""Limits are higher by this share of 1/n while a reference holds few values: MAD is as unsure as a standard deviation
from 0.37 n values (Rousseeuw & Croux 1993), and Student's t with that many degrees of freedom widens about so."""
SEEN_TIMES = 1.6
TAIL_FRACTIONS = (0.02, 0.1)
LIGHT_TIMES = 3.0
"""A normal distribution has 6.2 standard deviations there, beyond every limit: nothing changes for it."""
TAIL_TIMES = 6.0
"""An exponential tail falls by a factor of 5 from the outer 10 % to the outer 2 %, and again with each such step: six
more steps are 2 % / 5**6, about one in a million."""
ROUNDING = 1e-12
"""Differences below this share of the value are floating-point rounding."""


@dataclass(frozen=True)
class Span:
    """One time scale.

    Args:
        readings: how many are averaged.
        limit: robust standard deviations that are too far. Averages come closer to normal (and fewer of them are
            tested), so that the same false-alarm rate needs less.
        warm_up: averages in the reference before this span speaks.
        seen: the outer fraction of the reference for view 2, of which SEEN_TIMES the distance is too far.
        tails: whether view 3 counts.
    """

    readings: int
    limit: float
    warm_up: int
    seen: float
    tails: bool = False

    @property
    def stride(self) -> int:
        """Readings from one test of a moving average to the next."""
        return max(1, self.readings // 8)


SPANS = (
    Span(1, limit=5.5, warm_up=32, seen=0.01, tails=True),
    Span(8, limit=4.5, warm_up=12, seen=0.1),
    Span(64, limit=3.6, warm_up=24, seen=0.1),
)


class Baseline(NamedTuple):
    """Normal for one span: centre, scale above and below it, and the limit in scales. A scale is 0 only when every
    value was 0."""

    centre: float
    above: float
    below: float
    limit: float

    def ratio(self, value: float) -> float:
        """Distance from the centre as a share of the limit; beyond 1 is too far. Inf when nothing ever varied."""
        scale = self.above if value > self.centre else self.below
        if value == self.centre:
            return 0.0
        return abs(value - self.centre) / (scale * self.limit) if scale * self.limit else float("inf")

    def clamp(self, value: float) -> float:
        """The value, or the limit that it is beyond."""
        return min(max(value, self.centre - self.limit * self.below), self.centre + self.limit * self.above)


def written_step(value: float) -> float:
    """The last decimal place of a value as it is written, at most a hundredth of it.

    >>> written_step(21.5), written_step(400.0), written_step(0.0)
    (0.1, 0.1, 0.0)
    """
    exponent = Decimal(repr(value)).as_tuple().exponent
    return min(float(f"1e{exponent}"), abs(value) / 100)


def baseline(span: Span, reference: Reference, resolution: float) -> Baseline | None:
    """Views 1 to 3 of one span; None before its warm-up."""
    count = len(reference)
    if count < span.warm_up:
        return None
    centre = reference.median()
    (outer_low, outer_high), (inner_low, inner_high) = map(reference.tails, TAIL_FRACTIONS)
    bounded = LIGHT_TIMES * (outer_high - outer_low) / 2 / span.limit
    least = max(min(reference.sigma(centre), bounded), resolution / sqrt(span.readings), abs(centre) * ROUNDING)
    low, high = reference.tails(span.seen)
    reach = span.limit / SEEN_TIMES
    above, below = max(least, (high - centre) / reach), max(least, (centre - low) / reach)
    if span.tails:
        above = max(above, (outer_high - centre + TAIL_TIMES * (outer_high - inner_high)) / span.limit)
        below = max(below, (centre - outer_low + TAIL_TIMES * (inner_low - outer_low)) / span.limit)
    return Baseline(centre, above, below, span.limit * (1 + SMALL_SAMPLE / count))


def reconcile(views: list[Baseline | None]) -> list[Baseline | None]:
    """View 4, over the views of all SPANS."""
    result: list[Baseline | None] = list(views)
    above = below = 0.0
    for index in reversed(range(len(views))):
        if (view := views[index]) is not None:
            above, below = max(above, view.above), max(below, view.below)
            result[index] = view._replace(above=above, below=below)
    for index, span in enumerate(SPANS[1:], start=1):
        if (view := result[index]) is not None:
            root = sqrt(span.readings)
            result[index] = view._replace(above=max(view.above, above / root), below=max(view.below, below / root))
    return result
