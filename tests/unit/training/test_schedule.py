import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rows.curriculum import Curriculum
from data.rows.curriculum_config import CurriculumConfig, Stage
from training.schedule import KINDS, ScheduleConfig, learning_rate, multiplier, spans_of


def stages(*settings):
    named = {
        f"stage{number}": Stage(tokens=tokens, weights={"a": 1.0}, **setting)
        for number, (tokens, setting) in enumerate(settings)
    }
    config = CurriculumConfig(stages=named)
    return Curriculum(config, row_length=10, rows_per_step=1, seed=0).stages


@given(
    kind=st.sampled_from(KINDS),
    steps=st.integers(1, 500),
    warmup=st.floats(0, 0.5),
    cooldown=st.floats(0, 0.5),
    floor=st.floats(0, 1),
)
def test_rises_then_never_rises_again(kind, steps, warmup, cooldown, floor):
    config = ScheduleConfig(
        kind=kind, warmup_fraction=warmup, cooldown_fraction=cooldown, floor=floor
    )
    rates = [multiplier(step, steps, config) for step in range(steps)]
    turn = round(warmup * steps)
    assert all(0 < rate <= 1 + 1e-12 for rate in rates)
    assert all(a < b for a, b in pairwise(rates[:turn]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[turn:]))


DECAYING = ["cosine", "linear", "wsd"]


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("kind", DECAYING)
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_the_floor_is_reached_after_the_last_step(kind, floor, steps):
    config = ScheduleConfig(kind=kind, floor=floor, cooldown_fraction=0.5)
    assert multiplier(steps, steps, config) == pytest.approx(floor)
    last = multiplier(steps - 1, steps, config)
    assert last > floor
    if steps == 1000:
        assert last == pytest.approx(floor, abs=0.05)


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_only_step_has_a_good_part_of_the_peak(kind, warmup, floor):
    config = ScheduleConfig(kind=kind, warmup_fraction=warmup, floor=floor, cooldown_fraction=0)
    assert multiplier(0, 1, config) >= 0.5


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Of three steps, a quarter of the way each: 1 - q, (1 + cos(pi q)) / 2, 1 - sqrt(q).
        ("linear", [0.75, 0.5, 0.25]),
        ("cosine", [(2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]),
        ("wsd", [0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)]),
    ],
)
@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_decay_by_hand(kind, expected, floor):
    config = ScheduleConfig(kind=kind, warmup_fraction=0, cooldown_fraction=1, floor=floor)
    rates = [multiplier(step, 3, config) for step in range(3)]
    assert rates == pytest.approx([floor + (1 - floor) * rate for rate in expected])


@pytest.mark.parametrize("kind", DECAYING)
def test_decay_after_warmup_by_hand(kind):
    """Two steps up and three down: the falling ones are those of a span of three."""
    config = ScheduleConfig(kind=kind, warmup_fraction=0.4, cooldown_fraction=0.6, floor=0)
    alone = ScheduleConfig(kind=kind, warmup_fraction=0, cooldown_fraction=1, floor=0)
    rates = [multiplier(step, 5, config) for step in range(5)]
    assert rates == pytest.approx([0.5, 1, *(multiplier(step, 3, alone) for step in range(3))])


def test_wsd_without_a_cooldown_is_constant():
    config = ScheduleConfig(kind="wsd", warmup_fraction=0.1, cooldown_fraction=0, floor=0)
    assert [multiplier(step, 10, config) for step in range(10)] == [1.0] * 10


def test_warmup_reaches_the_peak_with_its_last_step():
    config = ScheduleConfig(kind="constant", warmup_fraction=0.1)
    assert multiplier(0, 100, config) == pytest.approx(0.1)
    assert multiplier(9, 100, config) == 1.0
    assert multiplier(99, 100, config) == 1.0


def test_wsd_cools_down_by_one_minus_square_root():
    config = ScheduleConfig(kind="wsd", warmup_fraction=0, cooldown_fraction=0.2, floor=0)
    assert multiplier(79, 100, config) == 1.0
    assert multiplier(84, 100, config) == pytest.approx(1 - math.sqrt(5 / 21))


def test_cosine_is_half_way_down_in_the_middle():
    config = ScheduleConfig(kind="cosine", warmup_fraction=0, floor=0)
    assert multiplier(49, 99, config) == pytest.approx(0.5)


def test_restart_begins_a_span_and_continue_prolongs_it():
    linear = ScheduleConfig(kind="linear", warmup_fraction=0, floor=0)
    restart = spans_of(stages((1000, {}), (500, {"peak_lr": 7.0})), 2.0)
    assert [(s.first_step, s.steps, s.peak_lr) for s in restart] == [(0, 100, 2.0), (100, 50, 7.0)]
    assert learning_rate(99, restart, linear) == pytest.approx(2.0 * (1 - 100 / 101))
    assert learning_rate(100, restart, linear) == pytest.approx(7.0 * (1 - 1 / 51))
    assert learning_rate(149, restart, linear) == pytest.approx(7.0 * (1 - 50 / 51))

    joined = spans_of(stages((1000, {}), (500, {"lr": "continue"})), 2.0)
    assert [(s.first_step, s.steps, s.peak_lr) for s in joined] == [(0, 150, 2.0)]
    assert learning_rate(100, joined, linear) == pytest.approx(2.0 * (1 - 101 / 151))


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_of_any_stage_is_void(kind):
    """Stages of one step, restarted and continued, with a floor of 0."""
    config = ScheduleConfig(kind=kind, floor=0, cooldown_fraction=0.5)
    plans = stages((10, {}), (10, {}), (30, {"peak_lr": 2.0}), (10, {"lr": "continue"}))
    spans = spans_of(plans, 1.0)
    rates = [learning_rate(step, spans, config) for step in range(6)]
    assert rates[0] == rates[1] >= 0.25
    assert all(rate > 0.01 for rate in rates)


def test_the_rate_of_the_second_stage_does_not_depend_on_running_the_first():
    """With restart, `tspt_stage2` uses the rates that `tspt` uses in its second stage."""
    config = ScheduleConfig()
    both = spans_of(stages((1000, {}), (500, {})), 1.0)
    alone = spans_of(stages((500, {})), 1.0)
    for step in range(50):
        assert learning_rate(100 + step, both, config) == learning_rate(step, alone, config)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"kind": "cosin"}, "schedule.kind"),
        ({"warmup_fraction": 1.5}, "schedule.warmup_fraction"),
        ({"floor": -0.1}, "schedule.floor"),
        ({"kind": "wsd", "warmup_fraction": 0.6, "cooldown_fraction": 0.6}, "exceed 1"),
    ],
)
def test_bad_settings_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        ScheduleConfig(**changes)
