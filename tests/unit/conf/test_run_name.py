"""The default name of a run follows from what the run computes, not from the code's version."""

from dataclasses import dataclass, field, fields, make_dataclass, replace

import pytest

from conf.schema import check_same_run, to_yaml, under_former_name
from data.rows.curriculum_config import Replay
from tests.helpers.runs import configure
from training.schedule import ScheduleConfig


@dataclass(kw_only=True)
class Deep:
    """A group of fields that a later version might have."""

    depth: int = 3
    kinds: list[str] = field(default_factory=lambda: ["a"])


def grown(value, **new):
    """A dataclass with further fields, of which each has a default."""
    kind = make_dataclass(
        f"Later{type(value).__name__}",
        [(name, object, field(default_factory=lambda x=x: x)) for name, x in new.items()],
        bases=(type(value),),
        kw_only=True,
    )
    return kind(**{part.name: getattr(value, part.name) for part in fields(value)})


@pytest.fixture
def config():
    return configure("+experiment=sft_lora", "init_from=x", "model=toy", "lora.rank=4")


def with_stages(config, change):
    stages = {name: change(stage) for name, stage in config.curriculum.stages.items()}
    return replace(config, curriculum=replace(config.curriculum, stages=stages))


LATER = {
    "a field": lambda config: grown(config, later=7),
    "a group of fields": lambda config: grown(config, later=Deep()),
    "an optional group": lambda config: grown(config, later=None),
    "a field of optim": lambda config: replace(config, optim=grown(config.optim, later=0.5)),
    "a list in batch": lambda config: replace(config, batch=grown(config.batch, later=[1, 2])),
    "a field of model": lambda config: replace(config, model=grown(config.model, later=True)),
    "a field of lora": lambda config: replace(config, lora=grown(config.lora, later="x")),
    "a mapping in data": lambda config: replace(config, data=grown(config.data, later={})),
    "a field of stages": lambda config: with_stages(config, lambda x: grown(x, later=1.0)),
    "a group in stages": lambda config: with_stages(config, lambda x: grown(x, later=Deep())),
    "a field of replay": lambda config: with_stages(
        config, lambda x: replace(x, replay=grown(x.replay, later=1))
    ),
}


@pytest.mark.parametrize("later", LATER)
def test_a_field_that_the_code_gains_changes_no_name(config, later):
    assert LATER[later](config).folder == config.folder


@pytest.mark.parametrize(
    "change",
    [
        lambda config: replace(grown(config, later=7), later=8),
        lambda config: replace(grown(config, later=Deep()), later=Deep(depth=4)),
        lambda config: replace(grown(config, later=None), later=Deep()),
        lambda config: replace(config, optim=replace(grown(config.optim, later=0.5), later=0.6)),
        lambda config: with_stages(config, lambda x: replace(grown(x, later=1.0), later=2.0)),
        lambda config: replace(config, model=replace(grown(config.model, later=1), later=2)),
    ],
)
def test_another_value_of_a_later_field_is_another_run(config, change):
    assert change(config).folder != config.folder


def test_a_written_run_goes_on_where_the_code_has_gained_fields(config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    for later in LATER.values():
        check_same_run(path, later(config))
    with pytest.raises(ValueError, match=r"optim\.later: None -> 0\.6"):
        check_same_run(
            path, replace(config, optim=replace(grown(config.optim, later=0.5), later=0.6))
        )


def test_a_default_that_changes_is_another_run_and_the_old_folder_is_not_continued(tmp_path):
    """The name is that of the defaults, so the written settings have to tell."""
    before = configure("+experiment=tspt_stage1", "model=toy")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(before))

    @dataclass(kw_only=True)
    class Later(ScheduleConfig):
        floor: float = 0.2

    after = replace(before, schedule=Later())
    assert after.schedule.floor == 0.2
    with pytest.raises(ValueError, match=r"schedule\.floor: 0\.1 -> 0\.2"):
        check_same_run(path, after)
    # Who asks for what was the default gets another name than with the default of now.
    assert replace(before, schedule=Later(floor=0.1)).folder != after.folder


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "optim.lr=1e-4",
        "model.hidden_size=64",
        "data.root=elsewhere",
        "data.sources.geo_en=other",
        "curriculum.stages.adaptation.tokens=4096",
        "curriculum.stages.specialization.replay.share=0.1",
        "curriculum.run=[adaptation,specialization]",
        "parallel.dtype=float32",
        "lora=r8",
    ],
)
def test_what_is_computed_decides_the_name(override):
    base = ("+experiment=tspt_stage1", "init_from=x")
    assert configure(*base, override).folder != configure(*base).folder


@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=0.003",  # what conf/train.yaml sets
        "schedule.floor=0.1",
        "schedule.kind=cosine",
        "batch.row_length=256",
        "curriculum.scale=1",
        "curriculum.stages.adaptation.moments=reset",
        "model.rope_theta=10000",
        "lora=none",
    ],
)
def test_a_default_that_is_typed_is_the_default(override):
    base = ("+experiment=tspt_stage1",)
    assert configure(*base, override).folder == configure(*base).folder


def test_the_order_of_stages_and_sources_is_part_of_the_run(tmp_path):
    """Rows follow from both; a mapping that is typed in another order is otherwise the same."""
    config = configure("+experiment=tspt")
    stages = dict(reversed(config.curriculum.stages.items()))
    stages = {name: replace(stage, replay=Replay()) for name, stage in stages.items()}
    forward = replace(
        config.curriculum, stages={name: stages[name] for name in config.curriculum.stages}
    )
    one, other = (replace(config, curriculum=x) for x in (forward, replace(forward, stages=stages)))
    assert one.folder != other.folder
    turned = with_stages(one, lambda x: replace(x, weights=dict(reversed(x.weights.items()))))
    assert turned.folder != one.folder
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(one))
    check_same_run(path, one)
    for different in (other, turned):
        with pytest.raises(ValueError, match=r"\(order\): "):
            check_same_run(path, different)
    data = replace(one.data, sources=dict(reversed(one.data.sources.items())))
    assert replace(one, data=data).folder == one.folder
    check_same_run(path, replace(one, data=data))


def written(folder, name, config):
    (folder / name).mkdir(parents=True)
    (folder / name / "config.yaml").write_text(to_yaml(config))


def test_a_run_under_a_former_name_is_found(tmp_path):
    config = configure("+experiment=tspt_stage1", f"runs_folder={tmp_path}")
    assert under_former_name(config) == config  # no runs
    written(tmp_path, "tspt_stage1-00c0ffee", replace(config, seed=1))
    written(tmp_path, "tspt_stage1-mine", config)  # somebody has chosen this name
    written(tmp_path, "tspt_stage2-00c0ffee", config)
    (tmp_path / "tspt_stage1-00000000").mkdir()
    (tmp_path / "tspt_stage1-00000000" / "config.yaml").write_text("{")  # damaged
    assert under_former_name(config) == config
    written(tmp_path, "tspt_stage1-deadbeef", replace(config, resume="never", device="cpu"))
    assert under_former_name(config).name == "tspt_stage1-deadbeef"
    assert under_former_name(replace(config, name="mine")).name == "mine"
    elsewhere = replace(config, data=replace(config.data, root="elsewhere"))
    assert under_former_name(elsewhere) == elsewhere  # whose data may be others
    config.folder.mkdir()
    assert under_former_name(config) == config


def test_a_former_name_is_found_where_the_shape_is_that_of_a_folder(tmp_path):
    asked = configure("+experiment=sft_full", "init_from=x", f"runs_folder={tmp_path}")
    assert asked.model is None
    shape = configure("model=toy").model
    written(tmp_path, "sft_full-0a0b0c0d", replace(asked, model=shape))
    assert under_former_name(asked).name == "sft_full-0a0b0c0d"
    other = replace(asked, init_from="y")
    assert under_former_name(other) == other
