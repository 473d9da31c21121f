"""What the detector finds and what it leaves alone, over series of many kinds without any setting."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable

import pytest
from anomaly.detector import LONGEST_INTERVAL, Detector, Interval
from hypothesis import given, settings
from hypothesis import strategies as st

Series = Callable[[random.Random, int], list[float]]


def found(values: Iterable[float]) -> list[Interval]:
    detector = Detector()
    ended = [detector.add(position, value) for position, value in enumerate(values)]
    return [interval for interval in [*ended, detector.close()] if interval is not None]


def noise(generator: random.Random, count: int) -> list[float]:
    return [generator.gauss(20, 1) for _ in range(count)]


def autoregressive(generator: random.Random, count: int) -> list[float]:
    value, values = 0.0, []
    for _ in range(count):
        value = 0.95 * value + generator.gauss(0, 1)
        values.append(value)
    return values


def day_and_night(generator: random.Random, count: int) -> list[float]:
    return [10 * math.sin(2 * math.pi * n / 288) + generator.gauss(0, 1) for n in range(count)]


QUIET: dict[str, Series] = {
    "normal noise": noise,
    "uniform noise": lambda g, n: [g.random() for _ in range(n)],
    "noise with exponential tails": lambda g, n: [g.expovariate(1) for _ in range(n)],
    "correlated noise": autoregressive,
    "day and night": day_and_night,
    "day and night without noise": lambda _, n: [math.sin(2 * math.pi * i / 288) for i in range(n)],
    "a week with quiet days": lambda g, n: [
        (20 + 10 * math.sin(2 * math.pi * i / 288)) * (1 if i // 288 % 7 < 5 else 0.6) + g.gauss(0, 1) for i in range(n)
    ],
    "linear drift": lambda g, n: [0.01 * i + g.gauss(0, 1) for i in range(n)],
    "linear drift without noise": lambda _, n: [0.01 * i for i in range(n)],
    "rounded to half degrees": lambda g, n: [round(g.gauss(20, 0.4) * 2) / 2 for _ in range(n)],
    "events counted": lambda g, n: [float(sum(g.random() < 0.1 for _ in range(10))) for _ in range(n)],
    "nothing ever happens": lambda _, n: [21.5] * n,
    "always zero": lambda _, n: [0.0] * n,
    "two values in turn": lambda _, n: [float(i % 2) for i in range(n)],
}


@pytest.mark.parametrize("count", [10, 100, 500, 4000])
@pytest.mark.parametrize("kind", QUIET)
def test_it_is_quiet_on(kind: str, count: int) -> None:
    assert found(QUIET[kind](random.Random(f"{kind} {count}"), count)) == []


@pytest.mark.parametrize("kind", ["normal noise", "correlated noise", "day and night", "rounded to half degrees"])
@pytest.mark.parametrize(
    ("length", "size"),
    [pytest.param(1, 60, id="spike"), pytest.param(10, 40, id="burst"), pytest.param(120, 40, id="lasting")],
)
def test_it_finds(kind: str, length: int, size: float) -> None:
    values = QUIET[kind](random.Random(kind), 1000)
    for position in range(700, 700 + length):
        values[position] += size
    intervals = found(values)
    assert len(intervals) == 1
    interval = intervals[0]
    assert interval.direction == "up"
    assert 700 - 8 <= interval.start <= 702  # type: ignore[operator]
    assert interval.end >= 699 + length - 40  # type: ignore[operator]
    assert interval.peak == max(values)
    assert interval.score > 3


def test_a_small_shift_that_lasts_is_found_by_the_long_average() -> None:
    values = noise(random.Random(5), 4000)
    for position in range(3000, 3200):
        values[position] += 1.5
    intervals = found(values)
    assert [interval.direction for interval in intervals] == ["up"]
    assert 2936 <= intervals[0].start <= 3100  # type: ignore[operator]
    assert max(abs(value - 20) for value in values) < 6, "no single reading stands out"


def test_a_level_shift_becomes_the_new_normal() -> None:
    generator = random.Random(6)
    values = noise(generator, 600) + [value + 50 for value in noise(generator, 3000)]
    first, *more = found(values)
    assert first.count <= LONGEST_INTERVAL + 1
    assert more == []


def test_on_and_off_is_learned() -> None:
    values = [20.0 + 60 * (n // 144 % 2) + random.Random(n).gauss(0, 0.5) for n in range(8000)]
    late = [interval for interval in found(values) if interval.start > 2000]  # type: ignore[operator]
    assert late == []


def test_a_constant_stretch_is_no_reason_to_cry_when_it_ends() -> None:
    generator = random.Random(7)
    values = noise(generator, 2000) + [20.0] * 400 + noise(generator, 1000)
    assert found(values) == []


def test_the_first_change_of_a_constant_series_is_found_unless_it_is_the_last_digit() -> None:
    assert [interval.peak for interval in found([20.0] * 60 + [95.0] + [20.0] * 60)] == [95.0]
    assert found([35.2] * 60 + [35.3, 35.2] * 30) == []


def test_peak_of_a_dip_is_its_lowest_value() -> None:
    values = noise(random.Random(14), 300)
    values[200:203] = [-40.0, -80.0, -30.0]
    (interval,) = found(values)
    assert (interval.start, interval.end, interval.peak, interval.direction) == (200, 202, -80.0, "down")
    assert interval.count == 3
    assert interval.expected == pytest.approx(20, abs=0.3)


def test_an_interval_still_open_is_given_at_the_end() -> None:
    values = [*noise(random.Random(9), 100), 90.0, 91.0]
    detector = Detector()
    assert all(detector.add(position, value) is None for position, value in enumerate(values))
    assert detector.in_anomaly
    interval = detector.close()
    assert interval is not None
    assert (interval.start, interval.end, interval.count) == (100, 101, 2)
    assert detector.close() is None


@pytest.mark.parametrize(
    ("scale", "offset"),
    [
        pytest.param(1.8, 32, id="fahrenheit"),
        pytest.param(1, 273.15, id="kelvin"),
        pytest.param(-1, 0, id="upside down"),
        pytest.param(1e-12, 0, id="tiny"),
        pytest.param(1e280, 0, id="huge"),
        pytest.param(1000, -1e6, id="far from zero"),
    ],
)
def test_units_do_not_matter(scale: float, offset: float) -> None:
    values = day_and_night(random.Random(10), 1500)
    values[900:930] = [value + 45 for value in values[900:930]]
    values[1300] -= 60
    plain, converted = found(values), found(scale * value + offset for value in values)
    assert len(plain) == 2
    assert [(one.start, one.end, one.count) for one in converted] == [(one.start, one.end, one.count) for one in plain]
    assert [one.score for one in converted] == pytest.approx([one.score for one in plain], rel=1e-3)


def test_a_burst_in_a_demo_of_two_hundred_readings_is_found() -> None:
    generator = random.Random(11)
    values = [max(0.0, generator.gauss(8, 4)) + (20 if n % 20 < 2 else 0) for n in range(200)]
    values[80:120] = [100.0 - generator.random() for _ in range(40)]
    assert any(interval.start < 120 and interval.end >= 80 for interval in found(values))  # type: ignore[operator]


@pytest.mark.parametrize("batch", [1, 7, 250])
def test_state_can_be_stored_between_any_two_readings(batch: int) -> None:
    values = autoregressive(random.Random(12), 1200)
    values[500:520] = [60.0] * 20
    values[900] = -80.0
    values[1195:] = [70.0] * 5
    detector, ended = Detector(), []
    for position, value in enumerate(values):
        ended.append(detector.add(f"t{position}", value))
        if position % batch == 0:
            detector = Detector.from_state(json.loads(json.dumps(detector.to_state(), allow_nan=False)))
    ended.append(detector.close())
    plain = found(values)
    assert len(plain) >= 3
    assert [(one.start, one.end, one.score) for one in ended if one] == [
        (f"t{one.start}", f"t{one.end}", one.score) for one in plain
    ]


def test_memory_is_constant() -> None:
    generator = random.Random(13)
    detector = Detector()
    sizes = []
    for position in range(40_000):
        detector.add("2013-12-02 21:15:00", generator.gauss(0, 1))
        if position % 10_000 == 9_999:
            sizes.append(len(json.dumps(detector.to_state())))
    assert max(sizes) < 25_000


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(min_value=-1e300, max_value=1e300),
            st.sampled_from([0.0, -0.0, 5e-324, 1e300, -1e300, 1.0]),
        ),
        min_size=80,
        max_size=300,
    )
)
def test_no_finite_series_breaks_it(values: list[float]) -> None:
    for interval in found(values):
        assert math.isfinite(interval.score)
        assert interval.peak in values
        assert interval.count >= 1
        assert interval.start <= interval.end  # type: ignore[operator]
    detector = Detector()
    for position, value in enumerate(values):
        detector.add(position, value)
    json.dumps(detector.to_state(), allow_nan=False)
