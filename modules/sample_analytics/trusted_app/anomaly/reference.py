"""What is normal: the last few hundred values, kept sorted, and robust statistics of them.

Median and MAD stay right while less than half of the values are outliers (Hampel 1974; Leys et al. 2013, "Detecting
outliers: Do not use standard deviation around the mean, use absolute deviation around the median").
"""

from __future__ import annotations

import base64
import binascii
from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable

CAPACITY = 512
"""Values remembered."""
MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation in units of its MAD."""


class Reference:
    """A sliding window of CAPACITY values. Adding costs a binary search and a short memory move."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._arrival = deque(values, CAPACITY)
        self._sorted = sorted(self._arrival)

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        """Remembers a value, and forgets the oldest when full."""
        if len(self._arrival) == CAPACITY:
            del self._sorted[bisect_left(self._sorted, self._arrival[0])]
        self._arrival.append(value)
        insort(self._sorted, value)

    def median(self) -> float:
        """Raises IndexError when empty."""
        values = self._sorted
        middle = len(values) // 2
        return values[middle] if len(values) % 2 else values[middle - 1] / 2 + values[middle] / 2

    def sigma(self, median: float) -> float:
        """Standard deviation by the median absolute deviation around `median`; 0 when more than half are equal."""
        return MAD_TO_SIGMA * median_deviation(self._sorted, median)

    def tails(self, fraction: float) -> tuple[float, float]:
        """The values that `fraction` of all lie below and above."""
        beyond = int(len(self._sorted) * fraction)
        return self._sorted[beyond], self._sorted[-1 - beyond]

    def to_text(self) -> str:
        """The values in the order they came, exact: base64 of little-endian doubles."""
        return base64.b64encode(array("d", self._arrival).tobytes()).decode()

    @classmethod
    def from_text(cls, text: str) -> Reference:
        """Raises ValueError when `text` did not come from `to_text`."""
        values = array("d")
        try:
            values.frombytes(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise ValueError("not a stored reference") from error
        return cls(values)


def median_deviation(ordered: list[float], centre: float) -> float:
    """Median of |value - centre| (the upper one of two) over sorted values, by binary search instead of sorting again.

    >>> median_deviation([1, 2, 3, 7, 99], 3)
    2
    """
    half = len(ordered) // 2
    # Of all runs of half + 1 neighbours, the one that reaches least far from the centre; its reach is the MAD.
    low, high = 0, len(ordered) - half - 1
    while low < high:
        start = (low + high) // 2
        if centre - ordered[start] > ordered[start + half] - centre:
            low = start + 1
        else:
            high = start
    runs = (low - 1, low) if low else (low,)
    return min(max(centre - ordered[start], ordered[start + half] - centre) for start in runs)
