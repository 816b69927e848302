"""The arms of the study differ in what docs/tspt.md says, and in nothing else."""

from collections import Counter
from dataclasses import asdict

import pytest

from conf.suggest import CONF
from data.curriculum import Plan
from data.loader import Loader
from data.sources import open_source
from data.stages import REPLAY
from tests.runs import configure

ARMS = sorted(path.stem for path in (CONF / "arm").glob("*.yaml"))
SAME_ROWS = ("one_stage", "tspt_single", "tspt_kept", "reversed")
STAGE_2 = ("tspt", "replay_00", "replay_06", "replay_50")


def arm(name, *overrides):
    return configure("+experiment=tspt_study", f"arm={name}", *overrides)


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_goes_by_its_name_and_seed(name):
    config = arm(name, "seed=7")
    assert config.experiment == name
    assert config.folder.name == f"{name}-s7"
    assert (config.init_from is None) == (name == "base")
    if config.init_from:
        parent = config.init_from.rpartition("/")[2]
        assert parent.endswith("-s7")
        assert parent.removesuffix("-s7") in [*ARMS, "grown"]
        assert config.model is None


@pytest.mark.parametrize("name", ARMS)
def test_arms_differ_in_start_curriculum_and_rate_alone(name):
    found, tspt = asdict(arm(name)), asdict(arm("tspt"))
    may_differ = {"experiment", "name", "init_from", "curriculum", "optim"}
    may_differ |= {"model"} if name == "base" else set()
    may_differ |= {"data", "batch", "evaluation"} if name.startswith("grown") else set()
    assert {key for key in found if found[key] != tspt[key]} <= may_differ
    assert found["optim"] | {"lr": 0} == tspt["optim"] | {"lr": 0}


def two_stages():
    """tspt with its stage 1, which the arm itself takes from s1_only."""
    return arm("tspt", "curriculum.run=[]").plan()


def contents(plan: Plan) -> list[tuple[str, int]]:
    return [(row.source, row.index) for row in map(plan.row, range(plan.rows))]


@pytest.mark.parametrize("name", SAME_ROWS)
def test_arms_of_another_order_see_the_rows_of_tspt(name):
    assert Counter(contents(arm(name).plan())) == Counter(contents(two_stages()))


def test_stage_2_is_what_it_is_after_stage_1_in_one_run():
    whole, second = two_stages(), arm("tspt").plan()
    first = arm("s1_only").plan()
    assert contents(first) + contents(second) == contents(whole)


def test_shares_of_replay_and_of_domain_text():
    stages = {name: arm(name).plan() for name in STAGE_2}
    assert len({plan.rows for plan in stages.values()}) == 1
    for name, share in zip(STAGE_2, (0.18, 0.0, 0.06, 0.5), strict=True):
        plan = stages[name]
        replayed = [plan.row(n).arm for n in range(plan.rows)].count(REPLAY)
        assert replayed == pytest.approx(share * plan.rows, abs=1)
    for percent in (10, 40, 70):
        plan = arm(f"one_stage_{percent}").plan()
        assert plan.rows == two_stages().rows
        domain = sum(source.startswith("geo") for source, _ in contents(plan))
        assert domain == pytest.approx(percent / 100 * plan.rows, abs=8)
        assert len(set(contents(plan))) == plan.rows


def test_one_stage_is_a_permutation_of_the_very_tokens(sample):
    """Read from the shards: the same token rows, in another order."""

    def tokens(name, *overrides):
        run = arm(name, "curriculum.scale=0.02", *overrides)
        opened = {key: open_source(sample / at) for key, at in run.data.sources.items()}
        plan = run.plan()
        options = {"micro_batch_rows": 8, "rank": 0, "world_size": 1, "seed": run.seed}
        with Loader(plan, opened, **options) as loader:
            return [loader.row(n).tokens.tobytes() for n in range(plan.rows)]

    mixed, staged = tokens("one_stage"), tokens("tspt", "curriculum.run=[]")
    assert mixed != staged
    assert Counter(mixed) == Counter(staged)
