import json

import pytest
import torch

from training.run.metrics import LoggingConfig, Meter, MetricsLog, measure_peak_flops
from training.run.plots import plot_run


def open_log(folder):
    return MetricsLog(folder, LoggingConfig(), active=True, steps=9, settings={})


def steps_in(folder):
    return [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def test_rows_after_the_checkpoint_are_forgotten_and_a_torn_line_too(tmp_path):
    log = open_log(tmp_path)
    log.rewind(None)
    for step in range(1, 7):
        log.write({"step": step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss_na')
    log = open_log(tmp_path)
    log.rewind(4)
    assert steps_in(tmp_path) == [1, 2, 3, 4]
    log.write({"step": 5})
    log.close()
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5]
    log = open_log(tmp_path)
    log.rewind(None)
    log.close()
    assert steps_in(tmp_path) == []


def test_a_line_that_is_no_row_is_named_and_nothing_is_lost(tmp_path):
    before = '{"step": 1}\n\0\0\0\n{"step": 2}\n'
    (tmp_path / "metrics.jsonl").write_text(before)
    log = open_log(tmp_path)
    with pytest.raises(ValueError, match=r"metrics.jsonl: line 2 is not a valid log record"):
        log.rewind(2)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_wandb_is_asked_to_continue_the_same_run(tmp_path, monkeypatch):
    import wandb

    asked = []
    monkeypatch.setattr(wandb, "init", lambda **options: asked.append(options))
    for _ in range(2):
        config = LoggingConfig(wandb="online")
        MetricsLog(tmp_path, config, active=True, steps=9, settings={}).close()
    first, second = asked
    assert first["id"] == second["id"] != ""
    assert first["resume"] == second["resume"] == "allow"  # online, `never` would refuse the id


def test_processes_other_than_the_main_one_write_nothing(tmp_path):
    log = MetricsLog(tmp_path, LoggingConfig(), active=False, steps=9, settings={})
    log.rewind(None)
    log.write({"step": 1})
    log.progress({"step": 1})
    log.say("nothing")
    log.close()
    assert not list(tmp_path.iterdir())


def test_a_log_file_gets_lines_with_the_time_left(tmp_path, capsys):
    log = open_log(tmp_path)
    log.rewind(None)
    row = {"stage": "s", "loss_nats": 1.0, "lr": 1e-3, "mfu": 0.5, "tokens_per_second": 10.0}
    row["mfu_palm"] = 0.6
    log.progress(row | {"step": 3, "tokens": 600})
    log.close()
    assert "step 3/9 s loss 1.000" in (out := capsys.readouterr().out)
    assert "2.0 min left" in out  # 1,200 tokens at 10 a second


def test_the_meter_counts_only_the_time_it_is_given():
    meter = Meter(peak_flops=100.0, palm_flops=6.0)
    meter.add(tokens=10, flops=50, seconds=2.0)
    meter.add(tokens=30, flops=150, seconds=2.0)
    assert meter.read() == {
        "tokens_per_second": 10.0,
        "mfu": 0.5,
        "mfu_palm": 0.6,
        "seconds": 4.0,
    }
    meter.add(tokens=7, flops=0, seconds=7.0)
    assert meter.read()["tokens_per_second"] == 1.0


def test_the_matrix_rate_is_a_rate():
    assert 1e8 < measure_peak_flops(torch.device("cpu"), torch.float32) < 1e15


def test_curves_are_drawn(tmp_path):
    rows = [{"step": 0, "stage": "a", "eval": {"x": {"bits_per_byte": 2.0}}}]
    rows += [{"step": s, "stage": "a" if s < 3 else "b", "loss_nats": 3 / s} for s in range(1, 6)]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plot_run(metrics, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
