from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rows.curriculum import Curriculum, RowAddress
from data.rows.curriculum_config import REPLAY, CurriculumConfig, LrMultipliers, Replay, Stage
from data.rows.interleave import interleave_by_weight
from data.rows.seeds import derive, permutation
from tests.helpers.draws import examples

ROW_LENGTH, ROWS_PER_STEP = 16, 4


def stage(steps, weights, **options):
    return Stage(tokens=steps * ROW_LENGTH * ROWS_PER_STEP, weights=weights, **options)


def make_plan(stages, run=(), seed=0):
    config = CurriculumConfig(stages=stages, run=list(run))
    return Curriculum(config, row_length=ROW_LENGTH, rows_per_step=ROWS_PER_STEP, seed=seed)


def addresses(plan):
    return [plan.row(n) for n in range(plan.rows)]


def tspt(steps=(30, 20)):
    general, domain = steps
    replay = Replay(of="general", share=0.18)
    return {
        "general": stage(general, {"web": 0.7, "books": 0.3}),
        "domain": stage(domain, {"geo": 0.9, "web": 0.1}, replay=replay),
    }


@examples(150)
@given(
    weights=st.lists(st.integers(1, 10**6), min_size=1, max_size=8)
    | st.lists(st.integers(1, 9), min_size=6, max_size=6),
    count=st.integers(1, 400),
)
def test_every_arm_stays_within_one_row_of_its_share(weights, count):
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    order = interleave_by_weight(shares, count)
    assert len(order) == count
    bound = 1 - Fraction(1, max(2 * len(shares) - 2, 1))
    turns = [0] * len(shares)
    for n, arm in enumerate(order.tolist(), start=1):
        turns[arm] += 1
        assert all(
            abs(taken - n * share) <= bound for taken, share in zip(turns, shares, strict=True)
        )
    for taken, share in zip(turns, shares, strict=True):
        if (count * share).denominator == 1:
            assert taken == count * share


def test_a_long_schedule_with_unround_shares_stays_close():
    weights = [123456789, 987654321, 55555, 7654321, 31415926, 27182818281]
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    order = interleave_by_weight(shares, 50_000)
    for arm, share in enumerate(shares):
        strays = np.cumsum(order == arm) - float(share) * np.arange(1, 50_001)
        assert np.abs(strays).max() < 0.9 + 1e-6


@pytest.mark.parametrize("share", [0.0, 0.18])
def test_a_stage_stays_within_one_row_of_its_weights(share):
    weights = {"a": 5.0, "b": 3.0, "c": 1.0, "d": 0.0, "e": 0.7, "f": 0.2, "g": 0.1}
    replay = Replay(of="first", share=share) if share else Replay()
    plan = make_plan({"first": stage(9, {"x": 1.0}), "second": stage(250, weights, replay=replay)})
    arms = [address.counted_as for address in addresses(plan)[9 * ROWS_PER_STEP :]]
    assert len(arms) == 1000
    shares = {name: (1 - share) * weight / 10 for name, weight in weights.items()}
    shares[REPLAY] = share
    for name, expected in shares.items():
        turns = np.cumsum([arm == name for arm in arms])
        assert np.abs(turns - expected * np.arange(1, 1001)).max() < 1


def test_counts_are_exact_where_shares_come_out_whole():
    weights = {"a": 0.5, "b": 0.2, "c": 0.1, "d": 0.1, "e": 0.1}
    replay = Replay(of="first", share=0.1)
    plan = make_plan({"first": stage(25, {"a": 1.0}), "second": stage(25, weights, replay=replay)})
    counts = Counter(address.counted_as for address in addresses(plan)[100:])
    assert counts == {"a": 45, "b": 18, "c": 9, "d": 9, "e": 9, REPLAY: 10}
    assert plan.consumed() == {"a": 145, "b": 18, "c": 9, "d": 9, "e": 9}


def test_weights_need_not_sum_to_one():
    small = make_plan({"s": stage(30, {"a": 0.7, "b": 0.3})})
    large = make_plan({"s": stage(30, {"a": 70.0, "b": 30.0})})
    assert addresses(small) == addresses(large)


def test_sources_are_read_in_order_across_stages_without_gaps():
    plan = make_plan(tspt())
    read = {}
    for address in addresses(plan):
        if address.counted_as != REPLAY:
            assert address.counted_as == address.source
            assert address.index == read.get(address.source, 0)
            read[address.source] = address.index + 1
    assert plan.consumed() == read
    assert set(plan.sources) == {"web", "books", "geo"}


def test_replay_is_a_permutation_of_the_replayed_rows_spread_over_all_of_them():
    plan = make_plan(tspt((30, 200)))
    rows = addresses(plan)
    general = [(row.source, row.index) for row in rows if row.stage == "general"]
    replayed = [(row.source, row.index) for row in rows if row.counted_as == REPLAY]
    assert len(general) == 120
    assert len(replayed) == 144
    for j, row in enumerate(replayed):
        order = permutation(120, derive(0, "domain", "replay", j // 120))
        assert row == general[order[j % 120]]
    assert Counter(replayed[:120]) == Counter(general)
    assert replayed[120:] != replayed[:24]
    halves = [general.index(row) >= 60 for row in replayed[:40]]
    assert 8 < sum(halves) < 32


def test_replay_of_a_stage_with_replay_finds_the_original_rows():
    stages = tspt((10, 20))
    stages["again"] = stage(40, {"geo": 1.0}, replay=Replay(of="domain", share=0.5))
    rows = addresses(make_plan(stages))
    domain = [(row.source, row.index) for row in rows if row.stage == "domain"]
    replayed = [
        (row.source, row.index) for row in rows if row.stage == "again" and row.counted_as == REPLAY
    ]
    assert any(source == "books" for source, _ in domain)
    assert Counter(replayed) == Counter(domain)


@pytest.mark.parametrize("run", [[], ["domain"], ["domain", "again"], ["again"]])
def test_all_rows_of_a_stage_at_once_are_its_rows_one_by_one(run):
    stages = tspt((10, 200))  # the domain stage replays more than the general one has
    stages["again"] = stage(40, {"geo": 1.0}, replay=Replay(of="domain", share=0.5))
    plan = make_plan(stages, run=run)
    for part in plan.stages:
        rows = plan.rows_of(part)
        found = zip(
            [plan.sources[place] for place in rows.sources],
            rows.indices.tolist(),
            rows.replayed.tolist(),
            strict=True,
        )
        expected = [plan.row(n) for n in range(part.first_row, part.first_row + part.rows)]
        assert list(found) == [
            (row.source, row.index, row.counted_as == REPLAY) for row in expected
        ]
    assert any(plan.rows_of(part).replayed.any() for part in plan.stages)


def test_the_second_stage_alone_reads_what_both_would():
    both = make_plan(tspt())
    first = make_plan(tspt(), run=["general"])
    second = make_plan(tspt(), run=["domain"])
    assert addresses(first) + addresses(second) == addresses(both)
    assert second.consumed() == both.consumed()
    assert first.sources == ["web", "books"]
    assert second.stages[0].first_row == second.stages[0].first_step == 0


def test_a_run_reads_only_what_it_needs():
    stages = {"one": stage(3, {"a": 1.0}), "two": stage(3, {"b": 1.0, "c": 0.0})}
    assert make_plan(stages, run=["two"]).sources == ["b"]
    assert make_plan(stages, run=["two"]).consumed() == {"a": 12, "b": 12}


def test_steps_and_rows_of_the_stages():
    plan = make_plan({**tspt(), "short": Stage(tokens=1, weights={"geo": 1.0})})
    assert (plan.steps, plan.rows) == (51, 204)
    assert [(s.name, s.first_step, s.steps, s.first_row, s.rows) for s in plan.stages] == [
        ("general", 0, 30, 0, 120),
        ("domain", 30, 20, 120, 80),
        ("short", 50, 1, 200, 4),
    ]
    assert [plan.stage_at(step).name for step in (0, 29, 30, 49, 50)] == [
        *["general"] * 2,
        *["domain"] * 2,
        "short",
    ]
    assert plan.row(120).stage == "domain"


def test_the_seed_moves_replay_only():
    one, other = addresses(make_plan(tspt(), seed=0)), addresses(make_plan(tspt(), seed=1))
    for a, b in zip(one, other, strict=True):
        assert a.counted_as == b.counted_as
        assert a == b or a.counted_as == REPLAY
    assert one != other


def test_rows_are_spread_not_clumped():
    plan = make_plan({"s": stage(25, {"a": 0.9, "b": 0.1})})
    places = [n for n, row in enumerate(addresses(plan)) if row.source == "b"]
    assert np.diff(places).tolist() == [10] * 9
    assert plan.row(0) == RowAddress("s", "a", 0, "a")


def two(**options):
    return {"one": stage(1, {"a": 1.0}), "two": stage(1, {"a": 1.0}, **options)}


@pytest.mark.parametrize(
    ("stages", "run", "message"),
    [
        ({}, [], "stages: empty"),
        ({"s": Stage(tokens=0, weights={"a": 1.0})}, [], r"stages\.s\.tokens: 0; must be positive"),
        ({"s": stage(1, {})}, [], r"stages\.s\.weights: {}; at least one"),
        ({"s": stage(1, {"a": 0.0})}, [], "at least one must be positive"),
        ({"s": stage(1, {"a": -1.0})}, [], r"stages\.s\.weights\.a: -1\.0; must be finite"),
        ({"s": stage(1, {"a": float("nan")})}, [], r"weights\.a: nan; must be finite"),
        ({"s": stage(1, {"a": float("inf")})}, [], r"weights\.a: inf; must be finite"),
        ({"s": stage(1, {"replay": 1.0})}, [], "cannot be named 'replay'"),
        ({"s": stage(1, {"": 1.0})}, [], "cannot be named ''"),
        (two(replay=Replay(of="one", share=1.0)), [], r"two\.replay\.share: 1\.0; must be"),
        (two(replay=Replay(of="one", share=-0.1)), [], r"two\.replay\.share: -0\.1; must be"),
        (two(replay=Replay(of="one", share=float("nan"))), [], r"two\.replay\.share: nan"),
        (two(replay=Replay(share=0.1)), [], r"two\.replay\.of: ''; must be an earlier stage"),
        (two(replay=Replay(of="two", share=0.1)), [], r"replay\.of: 'two'; must be an earlier"),
        (
            two(replay=Replay(of="typo")),
            [],
            r"replay\.of: 'typo'; must be an earlier stage \(one\)",
        ),
        (two(lr="warm"), [], r"two\.lr: 'warm'; must be restart or continue"),
        (two(moments="keep"), [], r"two\.moments: 'keep'; must be reset or kept"),
        (two(peak_lr=0.0), [], r"two\.peak_lr: 0\.0; must be positive"),
        (two(peak_lr=float("inf")), [], r"two\.peak_lr: inf; must be positive"),
        (two(peak_lr=1e-4, lr="continue"), [], r"two\.peak_lr: has no effect"),
        (two(trains="rows"), [], r"two\.trains: 'rows'; must be one of new_rows, embeddings, all"),
        (
            two(trains="new_rows", moments="kept"),
            [],
            r"two: trains=new_rows with moments=kept, but one trains=all.*use moments=reset",
        ),
        (
            two(lr_multipliers=LrMultipliers(head=0.0)),
            [],
            r"two\.lr_multipliers\.head: 0\.0; must be positive and finite \(.*use trains\)",
        ),
        (two(lr_multipliers=LrMultipliers(layers=float("inf"))), [], r"multipliers\.layers: inf"),
        (two(lr_multipliers=LrMultipliers(embeddings=-1.0)), [], r"multipliers\.embeddings: -1"),
        (
            two(lr_multipliers=LrMultipliers(layers=0.5), trains="embeddings"),
            [],
            r"two\.lr_multipliers\.layers: has no effect with trains=embeddings",
        ),
        (two(), ["one", "three"], "run: no stage 'three'; stages are one, two"),
        (two(), ["two", "one"], "not a range of consecutive stages"),
        (two(), ["one", "one"], "not a range of consecutive stages"),
        ({**two(), "three": stage(1, {"a": 1.0})}, ["one", "three"], "not a range"),
        ({"s": stage(1, {"a": 1.0}, lr="continue")}, [], "the run starts with this stage"),
        ({"s": stage(1, {"a": 1.0}, moments="kept")}, [], "the run starts with this stage"),
        (two(lr="continue"), ["two"], r"stages\.two: lr=continue, moments=reset"),
        (two(moments="kept"), ["two"], r"stages\.two: lr=restart, moments=kept"),
    ],
)
def test_what_cannot_be_meant_is_refused(stages, run, message):
    with pytest.raises(ValueError, match=message):
        CurriculumConfig(stages=stages, run=run)


def test_replay_can_be_switched_off_by_its_share():
    off = make_plan(two(replay=Replay(of="one", share=0.0)))
    assert addresses(off) == addresses(make_plan(two()))


def test_later_stages_may_go_on():
    CurriculumConfig(stages=two(lr="continue", moments="kept"))
    CurriculumConfig(stages=two(peak_lr=1e-4))
    CurriculumConfig(stages=two(trains="new_rows", lr_multipliers=LrMultipliers(head=3.0)))
    grown = {"grown": stage(1, {"a": 1.0}, trains="new_rows")}
    for trains in ("new_rows", "embeddings", "all"):
        later = stage(1, {"a": 1.0}, trains=trains, moments="kept")
        CurriculumConfig(stages=grown | {"later": later})


def ordered(order, stages=None, **options):
    config = CurriculumConfig(stages=stages or tspt(), order=order, **options)
    return Curriculum(config, row_length=ROW_LENGTH, rows_per_step=ROWS_PER_STEP, seed=3)


def contents(plan):
    return [(address.source, address.index) for address in addresses(plan)]


def test_a_mixed_run_is_a_permutation_of_the_rows_of_the_stages():
    staged, mixed = ordered("stages"), ordered("mixed")
    assert Counter(contents(mixed)) == Counter(contents(staged))
    assert contents(mixed) != contents(staged)
    assert contents(mixed) == contents(ordered("mixed"))
    assert [(stage.name, stage.steps) for stage in mixed.stages] == [("mixed", staged.steps)]
    assert mixed.consumed() == staged.consumed()
    assert mixed.sources == staged.sources
    replayed = [address.counted_as for address in addresses(mixed)].count(REPLAY)
    assert replayed == [address.counted_as for address in addresses(staged)].count(REPLAY) > 0
    # Spread over the whole run: each half has its part of the domain, to within chance.
    domain = np.flatnonzero([source == "geo" for source, _ in contents(mixed)])
    assert 0.35 < np.mean(domain < mixed.rows / 2) < 0.65


def test_a_reversed_run_takes_the_last_stage_first():
    staged, turned = ordered("stages"), ordered("reversed")
    border = staged.stages[0].rows
    assert contents(turned) == contents(staged)[border:] + contents(staged)[:border]
    assert [stage.name for stage in turned.stages] == ["domain", "general"]
    assert [stage.first_row for stage in turned.stages] == [0, turned.rows - border]
    assert turned.consumed() == staged.consumed()


@pytest.mark.parametrize("order", ["mixed", "reversed"])
def test_all_rows_of_a_stage_at_once_in_every_order(order):
    plan = ordered(order)
    for stage in plan.stages:
        rows = plan.rows_of(stage)
        for n, (source, index, again) in enumerate(
            zip(rows.sources, rows.indices, rows.replayed, strict=True), start=stage.first_row
        ):
            address = plan.row(n)
            assert (plan.sources[source], index) == (address.source, address.index)
            assert again == (address.counted_as == REPLAY)


def test_scale_multiplies_every_stage():
    assert [stage.steps for stage in ordered("stages", scale=0.5).stages] == [15, 10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "shuffled"}, "curriculum.order: 'shuffled'"),
        ({"scale": 0.0}, "curriculum.scale: 0.0"),
        ({"scale": float("nan")}, "curriculum.scale: nan"),
    ],
)
def test_bad_orders_and_scales(options, message):
    with pytest.raises(ValueError, match=message):
        CurriculumConfig(stages=tspt(), **options)


@pytest.mark.parametrize("order", ["mixed", "reversed"])
@pytest.mark.parametrize(
    "changed",
    [{"moments": "kept"}, {"lr": "continue"}, {"peak_lr": 1e-4}, {"trains": "embeddings"}],
)
def test_rows_do_not_change_places_between_stages_that_differ(order, changed):
    stages = tspt()
    for name, value in changed.items():
        setattr(stages["domain"], name, value)
    with pytest.raises(ValueError, match=f"curriculum.order={order}"):
        CurriculumConfig(stages=stages, order=order)
