"""Tolerances, drawn steps and settings of a verification."""

from types import SimpleNamespace

import pytest

from tools.verification.replay import (
    Replay,
    VerifyConfig,
    choose_tolerance,
    describe_reach,
    draw_replays,
    with_tolerances,
)
from training.run.log import Records, check_log


def test_each_start_promises_what_it_logs():
    def problems(starts, steps, reached=0, kept=()):
        starts = [{"step": step, "logging_every": every} for step, every in starts]
        return check_log(Records({}, starts, [{"step": s} for s in steps], reached), kept, 20, 5)

    assert problems([(0, 4), (8, 2)], [4, 8, 10, 12, 14], 14) == []
    assert problems([(0, 4), (8, 2)], [4, 8, 10, 14], 14)[0].startswith("steps 12: not")
    # The second start was overtaken by the third: it went back behind it.
    assert problems([(0, 4), (8, 1), (4, 6)], [4, 6, 12], 13) == []
    assert problems([(12, 1)], [5, 10, 13], 13) == []  # older than starts.jsonl up to 12
    assert problems([], [5, 10], 10) == []
    assert problems([(0, 7)], [7, 14, 20], 20) == []
    assert problems([(0, 7)], [7, 14], 14, [20])[0].startswith("steps 20: not")


def test_every_step_is_drawn_from_the_nearest_state_before_it():
    config = SimpleNamespace(steps=100, seed=0, reach=4)
    replays = draw_replays(config, [0, 10, 12], range(1, 20))
    assert replays == [Replay(0, [1, 2, 3, 4]), Replay(10, [11, 12]), Replay(12, [13, 14, 15, 16])]


def test_the_draw_follows_from_the_seed():
    def drawn(seed):
        config = VerifyConfig(run="r", steps=5, seed=seed, reach=50)
        replays = draw_replays(config, [0, 200], range(1, 251))
        return [step for replay in replays for step in replay.targets]

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(drawn(0)) == 5
    counts = [sum(step in drawn(seed) for seed in range(200)) for step in range(1, 51)]
    assert 1 <= min(counts) <= max(counts) <= 30  # of 10 expected


def test_the_reach_is_said():
    assert describe_reach([0], range(1, 4), 3) == "drawn from 3 of 3 logged steps"
    sentence = describe_reach([0, 10], range(1, 21), 5)
    assert sentence.startswith("drawn from 10 of 20 logged steps; the others are more than 5 steps")


NOW = {
    "step": 0,
    "ranks": 1,
    "device": "cpu",
    "dtype": "float32",
    "strategy": "fsdp",
    "processor": "AMD EPYC",
}
NOW |= {"logging_every": 1}


def test_equality_is_asked_for_where_the_starts_were_as_this_one():
    later = NOW | {"step": 8, "logging_every": 5}
    assert choose_tolerance(None, [NOW, later], NOW)[0] == 0
    assert choose_tolerance(1e-3, [NOW], NOW) == (1e-3, "as given")
    changes = [{"ranks": 2}, {"device": "H100"}, {"strategy": "replicate"}]
    for change in (*changes, {"processor": "Intel Xeon"}):
        for starts in ([NOW | change], [NOW | change, later], [NOW, later | change]):
            tolerance, why = choose_tolerance(None, starts, NOW)
            assert tolerance == 1e-5
            assert f"{next(iter(change))} " in why
            assert "->" in why
    tolerance, why = choose_tolerance(None, None, NOW)
    assert tolerance == 1e-5
    assert "older than" in why


def test_every_replay_is_held_to_its_own_starts():
    def tolerances(starts, *replays):
        given = [Replay(start, [stop]) for start, stop in replays]
        found, sentences = with_tolerances(given, None, [NOW | start for start in starts], NOW)
        assert len(sentences) == len({replay.tolerance for replay in found})
        return [(replay.start_tolerance, replay.tolerance) for replay in found]

    two = {"ranks": 2}
    replays = ((0, 4), (4, 8), (8, 10), (10, 12))
    assert tolerances([{}], *replays) == [(0, 0)] * 4
    # The start at step 9 was of two ranks; that at 10 was not.
    starts = [{}, {"step": 9} | two, {"step": 10}]
    assert tolerances(starts, *replays) == [(0, 0), (0, 0), (0, 1e-5), (1e-5, 0)]
    # The one at step 4 has computed anew what the one at 8 had done.
    starts = [two, {"step": 8} | two, {"step": 4}]
    assert tolerances(starts, *replays) == [(1e-5, 1e-5), (1e-5, 0), (0, 0), (0, 0)]
    # Older than starts.jsonl up to step 8.
    assert tolerances([{"step": 8}], (4, 8), (8, 10)) == [(1e-5, 1e-5), (1e-5, 0)]
    assert tolerances([], (0, 4)) == [(1e-5, 1e-5)]


def test_bfloat16_is_held_to_its_own_rounding():
    half = NOW | {"dtype": "bfloat16"}
    assert choose_tolerance(None, [half], half)[0] == 0
    assert choose_tolerance(None, None, half)[0] == 2**-8
    assert choose_tolerance(None, [half | {"ranks": 2}], half)[0] == 2**-8
    assert choose_tolerance(None, [half], NOW)[0] == choose_tolerance(None, [NOW], half)[0] == 2**-8


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"reach": -1}, "reach=-1: must be at least 1"),
        ({"tolerance": -1e-3}, "tolerance=-0.001: must be finite"),
        ({"tolerance": float("nan")}, "tolerance=nan: must be finite"),
    ],
)
def test_settings_without_meaning_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        VerifyConfig(run="runs/x", **asked)
