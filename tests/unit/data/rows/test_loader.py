from collections import Counter

import numpy as np
import pytest
import torch

from data.rows.curriculum import Curriculum
from data.rows.curriculum_config import CurriculumConfig, Replay, Stage
from data.rows.loader import Loader
from model.labels import IGNORE_INDEX
from tests.unit.data.rows.test_shards import make_documents, write_source

ROW_LENGTH, ROWS_PER_STEP, SEED = 24, 7, 3


@pytest.fixture
def sources(tmp_path):
    return {
        "general": write_source(tmp_path / "g", make_documents(40), make_documents(9, seed=1)),
        "domain": write_source(tmp_path / "d", make_documents(30, seed=2)),
    }


def make_plan(run=()):
    stages = {
        "one": Stage(tokens=6 * ROW_LENGTH * ROWS_PER_STEP, weights={"general": 1.0}),
        "two": Stage(
            tokens=8 * ROW_LENGTH * ROWS_PER_STEP,
            weights={"domain": 1.0},
            replay=Replay(of="one", share=0.2),
        ),
    }
    return Curriculum(
        CurriculumConfig(stages=stages, run=list(run)),
        row_length=ROW_LENGTH,
        rows_per_step=ROWS_PER_STEP,
        seed=SEED,
    )


def make_loader(sources, plan=None, **options):
    options = {"micro_batch_rows": 2, "rank": 0, "world_size": 1, "seed": SEED} | options
    return Loader(
        plan or make_plan(),
        sources,
        **options,
    )


def contents(batch):
    """Each row of a batch as bytes, with its number and arm."""
    tensors = (batch.tokens, batch.labels, batch.segments, batch.positions)
    return [
        (number, arm, *(tensor[i].numpy().tobytes() for tensor in tensors))
        for i, (number, arm) in enumerate(zip(batch.rows, batch.sources, strict=True))
    ]


def rows_of(loader, steps):
    """Per step, the rows that are not padding."""
    return [
        [row for batch in loader.step(step) for row in contents(batch) if row[0] >= 0]
        for step in steps
    ]


def test_a_step_holds_its_rows_in_order(sources):
    plan = make_plan()
    with make_loader(sources, plan) as loader:
        for step in range(plan.steps):
            batches = loader.step(step)
            numbers = [n for batch in batches for n in batch.rows]
            first = step * ROWS_PER_STEP
            assert numbers == [*range(first, first + ROWS_PER_STEP), -1]
            for batch in batches:
                assert batch.tokens.shape == (2, ROW_LENGTH)
                assert batch.tokens.dtype == batch.labels.dtype == torch.int64
                assert batch.segments.dtype == batch.positions.dtype == torch.int32
                for i, n in enumerate(batch.rows):
                    if n < 0:
                        assert batch.sources[i] == ""
                        continue
                    row = loader.row(n)
                    assert batch.sources[i] == plan.row(n).counted_as
                    np.testing.assert_array_equal(batch.tokens[i], row.tokens)
                    np.testing.assert_array_equal(batch.labels[i], row.labels)
                    np.testing.assert_array_equal(batch.segments[i], row.segments)
                    np.testing.assert_array_equal(batch.positions[i], row.positions)
        assert {arm for n in range(plan.rows) for arm in [plan.row(n).counted_as]} == {
            "general",
            "domain",
            "replay",
        }


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("micro_batch_rows", [1, 2, 8])
def test_rows_do_not_depend_on_world_size(sources, world_size, micro_batch_rows):
    plan = make_plan()
    with make_loader(sources, plan) as loader:
        expected = rows_of(loader, range(plan.steps))
    ranks = []
    for rank in range(world_size):
        with make_loader(
            sources, plan, rank=rank, world_size=world_size, micro_batch_rows=micro_batch_rows
        ) as loader:
            ranks.append([loader.step(step) for step in range(plan.steps)])
    for step, rows in enumerate(expected):
        batches = [rank[step] for rank in ranks]
        assert len({len(each) for each in batches}) == 1
        (size,) = {len(b.rows) for each in batches for b in each}
        assert size <= micro_batch_rows
        # No more padding than even micro-batches need.
        assert size * len(batches[0]) - -(-ROWS_PER_STEP // world_size) < len(batches[0])
        read = [row for each in batches for b in each for row in contents(b) if row[0] >= 0]
        assert sorted(read) == rows
        for rank, each in enumerate(batches):
            numbers = [n for b in each for n in b.rows if n >= 0]
            assert numbers == list(
                range(step * ROWS_PER_STEP + rank, (step + 1) * ROWS_PER_STEP, world_size)
            )
        supervised = sum(b.supervised_tokens for each in batches for b in each)
        labels = [np.frombuffer(row[3], np.int64) for row in rows]
        assert supervised == sum(int((each != IGNORE_INDEX).sum()) for each in labels)


@pytest.mark.parametrize("prefetch", [0, 1, 5, 100])
def test_rows_do_not_depend_on_prefetch_or_on_the_order_of_steps(sources, prefetch):
    plan = make_plan()
    with make_loader(sources, plan) as loader:
        expected = rows_of(loader, range(plan.steps))
    with make_loader(sources, plan, prefetch=prefetch) as loader:
        jumps = [0, 1, 2, 9, 3, 3, 13, 12, 0, 5, 6]
        assert rows_of(loader, jumps) == [expected[step] for step in jumps]


def test_the_second_stage_alone_reads_what_both_would(sources):
    both, one, two = make_plan(), make_plan(["one"]), make_plan(["two"])
    with make_loader(sources, both) as loader:
        expected = [row[1:] for step in rows_of(loader, range(both.steps)) for row in step]
    read = []
    for plan in (one, two):
        with make_loader(sources, plan) as loader:
            read += [row[1:] for step in rows_of(loader, range(plan.steps)) for row in step]
    assert read == expected


def test_the_first_stage_reads_every_token_of_an_epoch_once(sources):
    plan = make_plan(["one"])
    source = sources["general"]
    with make_loader(sources, plan) as loader:
        tokens = np.concatenate([loader.row(n).tokens for n in range(plan.rows)])
    assert len(tokens) > source.tokens
    stored = np.concatenate([source.document(n) for n in range(source.documents)])
    assert Counter(tokens[: source.tokens].tolist()) == Counter(stored.tolist())


def test_an_error_while_computing_ahead_surfaces_in_its_step(sources, monkeypatch):
    with make_loader(sources, prefetch=2) as loader:
        whole = loader.row

        def broken(n):
            if n == ROWS_PER_STEP:
                raise OSError("disk gone")
            return whole(n)

        monkeypatch.setattr(loader, "row", broken)
        loader.step(0)
        with pytest.raises(OSError, match="disk gone"):
            loader.step(1)
        assert len(loader.step(2)) == 4


def test_sources_that_do_not_fit_are_refused(sources, tmp_path):
    with pytest.raises(ValueError, match="'domain', but the data has general"):
        make_loader({"general": sources["general"]})
    make_loader({"general": sources["general"]}, make_plan(["one"])).close()
    other = write_source(tmp_path / "o", make_documents(5), tokenizer="u")
    with pytest.raises(
        ValueError, match=r"'domain' and 'general' .* different tokenizers .*t and u"
    ):
        make_loader({"general": other, "domain": sources["domain"]}, make_plan(["two"]))
