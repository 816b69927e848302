"""Every evaluation says how far each held-out set lies from where the run began."""

import json

import pytest

from tests.helpers.runs import evaluations, metrics
from training.run.forgetting import DELTA, starting_point, with_deltas
from training.run.metrics import LoggingConfig, MetricsLog
from training.run.plots import plot_forgetting, stage_borders


def results(**bits):
    return {name: {"loss_nats": 1.0, "bits_per_byte": value} for name, value in bits.items()}


def write_log(folder, *rows):
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def picture_of(metrics_file):
    picture = metrics_file.with_name("forgetting.png")
    plot_forgetting(metrics_file, picture)
    return picture.read_bytes() if picture.exists() else None


def test_a_delta_is_the_difference_to_the_start_and_nothing_else_changes():
    found = with_deltas(results(a=2.5, b=1.0, c=1.0), results(a=2.0, b=1.25))
    assert found["a"] == {"loss_nats": 1.0, "bits_per_byte": 2.5, DELTA: 0.5}
    assert found["b"][DELTA] == -0.25
    assert found["c"] == results(c=1.0)["c"]


def test_the_start_is_the_evaluation_at_step_0_alone(tmp_path):
    start, later = ({"step": step, "eval": results(a=float(step))} for step in (0, 5))
    step = {"step": 1, "loss_nats": 3.0}
    assert starting_point(write_log(tmp_path, start, step, later)) == results(a=0.0)
    assert starting_point(write_log(tmp_path, step, later)) is None
    assert starting_point(write_log(tmp_path)) is None


def test_a_log_that_lost_its_start_is_continued_without_deltas(tmp_path, capsys):
    path = write_log(tmp_path, {"step": 1, "loss_nats": 3.0})
    log = MetricsLog(tmp_path, LoggingConfig(), active=True, steps=9, settings={})
    log.evaluation(2, "s", results(a=2.0))
    log.close()
    assert json.loads(path.read_text().splitlines()[-1])["eval"] == results(a=2.0)
    assert "step 2: bits per byte a 2.0000\n" in capsys.readouterr().out


def test_a_run_logs_and_draws_its_deltas(finished):
    rows = evaluations(finished)
    assert sorted(rows) == [0, 6, 10]
    assert {result[DELTA] for result in rows[0].values()} == {0.0}
    for sets in rows.values():
        for name, result in sets.items():
            assert result[DELTA] == result["bits_per_byte"] - rows[0][name]["bits_per_byte"]
    assert all(result[DELTA] < 0 for result in rows[10].values())  # it began with noise
    assert (finished / "forgetting.png").read_bytes().startswith(b"\x89PNG")
    training = [row for row in metrics(finished) if "loss_nats" in row]
    assert stage_borders(training) == [6]


def test_a_log_that_is_rewound_gets_the_same_row_again(tmp_path):
    """Of whole runs that were killed, tests/e2e/resume/test_resume.py compares all rows."""
    path, texts = tmp_path / "metrics.jsonl", []
    for reached in (None, 2):
        log = MetricsLog(tmp_path, LoggingConfig(), active=True, steps=9, settings={})
        log.rewind(reached)
        for step in (0, 2, 4) if reached is None else (4,):
            log.evaluation(step, "s", results(a=2 - step / 7, b=1 + step / 3))
        log.close()
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    assert json.loads(texts[0].splitlines()[-1])["eval"]["a"][DELTA] == pytest.approx(-4 / 7)


def test_the_picture_shows_deltas_borders_and_older_logs(tmp_path):
    def step(n, stage):
        return {"step": n, "stage": stage, "loss_nats": 1.0, "tokens": 512 * n}

    begin, end = ({"step": n, "eval": results(a=2.0 + n, b=2.0 - n)} for n in (0, 2))
    border = picture_of(write_log(tmp_path, begin, step(1, "one"), step(2, "two"), end))
    plain = picture_of(write_log(tmp_path, begin, step(1, "one"), step(2, "one"), end))
    assert border is not None
    assert border != plain
    (tmp_path / "forgetting.png").unlink()
    for rows in ([], [begin], [step(1, "one"), end]):
        assert picture_of(write_log(tmp_path, *rows)) is None
