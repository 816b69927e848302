"""Checks of a run folder before a run is continued."""

import json

import pytest

from training.run.resume import ADAPTER, check_checkpoints_not_lost, check_same_data


@pytest.mark.parametrize(
    ("starts", "reached", "refused"),
    [
        ([], 99, False),  # older than starts.jsonl: nothing tells
        ([{"step": 0, "checkpoint_every": 4}], 8, False),  # the first may not be finished yet
        ([{"step": 0, "checkpoint_every": 4}], 9, True),
        ([{"step": 0, "checkpoint_every": 4}, {"step": 0, "checkpoint_every": 50}], 9, False),
        ([{"step": 0, "checkpoint_every": 4}, {"step": 4, "checkpoint_every": 4}], 5, True),
        ([{"step": 0}], 9, False),
    ],
)
def test_how_lost_checkpoints_are_known(tmp_path, starts, reached, refused):
    lines = [json.dumps(start | {"logging_every": 1}) + "\n" for start in starts]
    (tmp_path / "starts.jsonl").write_text("".join(lines))
    log = [{"step": step, "loss_nats": 1.0} for step in range(1, reached + 1)]
    torn = '{"step": 400, "los'
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in log) + torn)
    if refused:
        with pytest.raises(ValueError, match="holds no checkpoint, but had some"):
            check_checkpoints_not_lost(tmp_path)
    else:
        check_checkpoints_not_lost(tmp_path)


def test_the_adapter_that_a_run_continues_is_noted(tmp_path):
    """Whoever opens the weights names the same adapter; who reads the data alone need not."""
    record = tmp_path / "environment.json"
    begun = {"geo_en": "a", "init_from": "b", ADAPTER: "c"}
    record.write_text(json.dumps({"data_fingerprints": begun}))
    check_same_data(record, begun)
    check_same_data(record, {"geo_en": "a"})
    for now in (begun | {ADAPTER: "d"}, {"geo_en": "a", "init_from": "b"}):
        with pytest.raises(ValueError, match=r"^init_from \(adapter\) changed since"):
            check_same_data(record, now)
    record.write_text(json.dumps({"data_fingerprints": {"geo_en": "a", "init_from": "b"}}))
    with pytest.raises(ValueError, match=r"^init_from \(adapter\) changed since"):
        check_same_data(record, begun)
