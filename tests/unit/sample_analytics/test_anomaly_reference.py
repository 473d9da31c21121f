from __future__ import annotations

import random
import statistics

import pytest
from anomaly.baseline import SPANS, baseline, reconcile, written_step
from anomaly.reference import CAPACITY, MAD_TO_SIGMA, Reference, median_deviation
from hypothesis import given
from hypothesis import strategies as st

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


@given(st.lists(finite, min_size=1, max_size=60), finite)
def test_median_deviation_is_what_sorting_the_deviations_gives(values: list[float], centre: float) -> None:
    deviations = sorted(abs(value - centre) for value in values)
    assert median_deviation(sorted(values), centre) == deviations[len(values) // 2]


@given(st.lists(finite, min_size=1, max_size=60))
def test_median_is_that_of_statistics(values: list[float]) -> None:
    assert Reference(values).median() == pytest.approx(statistics.median(values))


def test_window_slides_and_survives_text() -> None:
    generator = random.Random(1)
    values = [generator.choice([0.0, -0.0, 1.5, generator.random()]) for _ in range(3 * CAPACITY)]
    reference = Reference()
    for value in values:
        reference.add(value)
    kept = values[-CAPACITY:]
    assert len(reference) == CAPACITY
    assert reference.median() == statistics.median(kept)
    assert reference.tails(0.0) == (min(kept), max(kept))
    again = Reference.from_text(reference.to_text())
    again.add(7.0)
    reference.add(7.0)
    assert again.to_text() == reference.to_text()


@pytest.mark.parametrize("text", ["!", "AAAA", "AAA"])
def test_text_that_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Reference.from_text(text)


def test_sigma_of_normal_noise() -> None:
    generator = random.Random(2)
    reference = Reference(generator.gauss(10, 3) for _ in range(CAPACITY))
    assert reference.sigma(reference.median()) == pytest.approx(3, rel=0.2)
    assert pytest.approx(1.4826) == MAD_TO_SIGMA


def test_a_span_says_nothing_before_its_warm_up() -> None:
    single = SPANS[0]
    assert baseline(single, Reference([1.0] * (single.warm_up - 1)), 0.0) is None
    assert baseline(single, Reference([1.0] * single.warm_up), 0.0) is not None


def test_limits_tighten_as_more_is_known() -> None:
    few, many = (baseline(SPANS[0], Reference([0.0, 1.0] * count), 0.0) for count in (16, 200))
    assert few is not None
    assert many is not None
    assert few.limit > many.limit > SPANS[0].limit


def test_a_short_memory_spreads_at_least_like_a_long_one() -> None:
    calm = baseline(SPANS[0], Reference([0.0, 0.01] * 100), 0.0)
    wandering = baseline(SPANS[2], Reference(float(value % 7) for value in range(100)), 0.0)
    single, _, long = reconcile([calm, None, wandering])
    assert single is not None
    assert long is not None
    assert single.above == long.above


@pytest.mark.parametrize(
    ("value", "step"),
    [(21.5, 0.1), (400.0, 0.1), (0.0, 0.0), (1e-7, 1e-9), (5e-324, 0.0), (1e300, 1e298), (-3.25, 0.01)],
)
def test_written_step_is_the_last_digit_and_small(value: float, step: float) -> None:
    assert written_step(value) == pytest.approx(step)
