"""What must be the same, and what may differ, for a run to be continued."""

import json
from contextlib import nullcontext

import pytest

from conf.schema import LAUNCH_FIELDS, MACHINE_FIELDS
from pretrained.merged import ADAPTED
from training.run.resume import check_same_data


def test_the_declared_list_of_harmless_keys():
    """Whoever adds a key here has made sure that no figure of a run depends on it."""
    assert sorted(LAUNCH_FIELDS) == sorted(
        (
            "name",
            "runs_folder",
            "resume",
            "device",
            "logging",
            "evaluation.every",
            "tasks",
            "batch.micro_batch_rows",
            "batch.prefetch",
            "checkpoint.every",
            "checkpoint.keep_last",
            "checkpoint.keep_every",
            "checkpoint.asynchronous",
            "checkpoint.export_every",
            "parallel.strategy",
            "parallel.shard_ranks",
            "parallel.attention",
            "parallel.checkpointing",
            "parallel.checkpointed_layers",
            "parallel.other_layers",
            "parallel.compile",
            "parallel.deterministic",
        )
    )
    assert MACHINE_FIELDS == ("data.root", "data.tokenizer", "parallel.dtype")


@pytest.mark.parametrize(
    ("before", "now", "refused"),
    [
        ("ab12", ADAPTED + "cd34", False),  # of the product, as earlier versions noted an adapter
        (ADAPTED + "ab12", ADAPTED + "cd34", True),
        (ADAPTED + "ab12", "cd34", True),
        ("ab12", "cd34", True),
        (None, ADAPTED + "cd34", False),  # a run of all weights: its path is compared instead
    ],
)
def test_an_adapter_noted_by_an_earlier_version_is_not_compared(tmp_path, before, now, refused):
    path = tmp_path / "environment.json"
    path.write_text(json.dumps({"data_fingerprints": {"init_from": before} if before else {}}))
    with pytest.raises(ValueError, match=r"^init_from changed") if refused else nullcontext():
        check_same_data(path, {"init_from": now})
