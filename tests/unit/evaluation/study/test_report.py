"""Reports of made-up studies whose effects are known."""

import base64
import json
import math
import re
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

import scripts.report
from evaluation.statistics import paired_t
from evaluation.study.compare import (
    ArmComparison,
    Method,
    adjust,
    compare_arms,
    recall,
    summarize_arm,
)
from evaluation.study.plots import numbered_curves
from evaluation.study.render import Heading, Table, to_html, to_markdown
from evaluation.study.report import (
    ReportConfig,
    analyse,
    build_report,
    comparisons_page,
    read_planned,
    table_page,
)
from evaluation.study.runs import find_runs, read_runs
from evaluation.study.study import build_study

SETS = {"general_en": 2.0, "general_zh": 1.5, "geo_en": 2.2, "geo_zh": 1.8}
SIDES = {"general": ["general_en", "general_zh"], "domain": ["geo_en", "geo_zh"]}
BYTES = {"general_en": 4000, "general_zh": 2000, "geo_en": 3000, "geo_zh": 1000}
DOCUMENTS = 12
FILES = ("table.md", "comparisons.md", "report.html")


def write_rows(folder, rows):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluation_row(step, stage, bits):
    found = {
        name: {"loss_nats": 1.0, "bits_per_byte": value, "tokens": 9, "bytes": BYTES[name]}
        for name, value in bits.items()
    }
    return {"step": step, "stage": stage, "eval": found}


def write_run(folder, arm, seed, before, after, *, starts_from="base-0", finished=True):
    """A run in two stages, the held-out sets of which go from one state to the other."""
    folder.mkdir(parents=True)
    config = {
        "seed": seed,
        "optim": {"lr": 0.003},
        "evaluation": {"chunk_bytes": 48},
        "data": {side: dict.fromkeys(sets, 0.5) for side, sets in SIDES.items()},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    study = {"arm": arm, "seed": seed, "starts_from": starts_from, "lr": 0.002}
    (folder / "study.json").write_text(json.dumps(study))
    rows = []
    for step in range(0, 41, 10):
        share = step / 40
        bits = {name: (1 - share) * before[name] + share * after[name] for name in before}
        rows.append(evaluation_row(step, "first" if step <= 20 else "second", bits))
        training = {"step": step + 5, "loss_nats": 1.0}
        rows.append(training | {"stage": "first" if step < 20 else "second"})
    write_rows(folder, rows[:-1])
    if finished:
        (folder / "model").mkdir()


def write_documents(folder, after, rng):
    """Documents that make up the held-out sets; which are hard is the same in every run."""
    documents = {}
    for name, value in after.items():
        sizes = np.linspace(0.5, 1.5, DOCUMENTS) * BYTES[name] / DOCUMENTS
        hardness = np.linspace(-0.2, 0.2, DOCUMENTS)
        hardness -= (hardness * sizes).sum() / sizes.sum()
        noise = rng.normal(0, 0.002, DOCUMENTS)
        nats = (value + hardness + noise) * math.log(2) * sizes
        documents[name] = np.stack([nats, sizes], axis=1).tolist()
    (folder / "documents.json").write_text(json.dumps(documents))


def write_probes(folder, strength):
    """Facts known the better the more often they were shown."""
    probes = []
    for exposures in (0, 1, 4, 16, 64):
        for n in range(8):
            margin = strength * math.log2(1 + exposures) / 6 - 0.4 + 0.1 * n
            fact = {"id": f"{exposures}-{n}", "language": "en", "domain": "geo"}
            fact |= {"exposures": exposures, "invented": True, "correct": margin > 0}
            probes.append(fact | {"margin_nats_per_byte": margin})
    (folder / "probes.json").write_text(json.dumps(probes))


def write_study(root, effects, *, seeds=5, noise=0.002, extras=True):
    """Arms whose sides lie off those of the base by known amounts, one base for all seeds."""
    rng = np.random.default_rng(0)
    write_run(root / "base-0", "base", 0, SETS, SETS, starts_from=None)
    if extras:
        write_documents(root / "base-0", SETS, np.random.default_rng(1))
    shared = rng.normal(0, 0.05, size=(seeds, 2))  # what runs of one seed have in common
    for arm, (general, domain) in effects.items():
        for seed in range(seeds):
            shift = shared[seed] + rng.normal(0, noise, size=2)
            after = {n: v + general + shift[0] for n, v in SETS.items() if n in SIDES["general"]}
            after |= {n: v + domain + shift[1] for n, v in SETS.items() if n in SIDES["domain"]}
            folder = root / f"{arm}-{seed}"
            write_run(folder, arm, seed, SETS, after)
            if extras:
                write_documents(folder, after, rng)
                write_probes(folder, -domain)
    return root


def configure(runs, **options):
    return ReportConfig(runs=runs if isinstance(runs, list) else str(runs), out="unused",
                        **({"samples": 500} | options))  # fmt: skip


def page_of(runs, name, **options):
    """The text of `table` or `comparisons`; no picture is drawn, which would take a second."""
    config = configure(runs, **options)
    study = read_planned(config)
    page = {"table": table_page, "comparisons": comparisons_page}[name]
    return to_markdown(page(config, study, analyse(config, study)))


def report_of(runs, **options):
    config = configure(runs, **options)
    return build_report(config, read_planned(config))


EFFECTS = {
    "tspt": (0.01, -0.30),
    "one_stage": (0.008, -0.26),
    "same": (0.01, -0.30),
    "mix_0.2": (0.02, -0.35),
    "mix_0.1": (0.0, -0.1),
    "mix_0.05": (-0.01, -0.05),
}
METHOD = Method("mean", 0.95, 500, 0)


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), EFFECTS)


@pytest.fixture(scope="module")
def report(study_folder):
    return report_of(study_folder)


@pytest.mark.parametrize("outcome", ["mean", "pooled"])
@pytest.mark.parametrize("other", ["base", "one_stage", "same", "mix_0.1"])
def test_a_planted_difference_is_found(study_folder, other, outcome):
    study = read_planned(configure(study_folder))
    planted = EFFECTS | {"base": (0.0, 0.0)}
    for n, side in enumerate(("general", "domain")):
        expected = EFFECTS["tspt"][n] - planted[other][n]
        found = compare_arms(study, "tspt", other, side, replace(METHOD, outcome=outcome))
        assert found.seeds == (0, 1, 2, 3, 4)
        assert expected in found.found.interval
        if abs(expected) > 0.03 and other != "base":
            assert found.found.mean == pytest.approx(expected, abs=0.01)
            assert np.sign(found.over_documents).tolist() == [np.sign(expected)] * 2
            assert found.signs == 2 / 32
            assert found.found.p < 1e-3


def test_pairing_takes_out_what_runs_of_a_seed_share(study_folder):
    study = read_planned(configure(study_folder))
    found = compare_arms(study, "tspt", "one_stage", "domain", METHOD)
    levels = [summarize_arm(study, arm, METHOD).levels["domain"] for arm in ("tspt", "one_stage")]
    width = found.found.interval.high - found.found.interval.low
    assert all(width < 0.3 * (level.interval.high - level.interval.low) for level in levels)


def test_changes_are_against_the_base(study_folder):
    study = read_planned(configure(study_folder))
    for arm, (general, domain) in EFFECTS.items():
        changes = summarize_arm(study, arm, METHOD).changes
        assert general in changes["general"].interval
        assert domain in changes["domain"].interval


def test_primary_and_secondary_verdicts_follow_from_the_numbers(study_folder):
    text = page_of(study_folder, "comparisons")
    primary, secondary = text.split("## Secondary")
    assert verdicts_of(primary) == ["superior", "non-inferior"]
    assert "non-inferior on general text by 0.005 bits per byte): shown." in primary
    rows = {(c[0], c[1]): c for c in rows_of(secondary)[2:]}
    assert rows["same", "domain"][-1] == "not shown"
    assert rows["mix_0.2", "domain"][-1] == "inferior"
    assert rows["mix_0.1", "domain"][-1] == "superior"
    assert rows["mix_0.2", "general"][-1].startswith("superior; non-inferior")
    assert rows["mix_0.05", "general"][-1].startswith("inferior; inferior by more than the margin")
    assert ("one_stage", "domain") not in rows
    assert len(rows) == 2 * 5
    for row in rows.values():
        p, adjusted = (0.0 if cell.startswith("<") else float(cell) for cell in row[5:7])
        assert adjusted >= p
        assert float(row[8]) >= float(row[7]) >= 2 / 32 or row[0] == "base"


def verdicts_of(markdown):
    """Last cells of the rows of comparisons."""
    return [row[-1] for row in rows_of(markdown) if len(row) == 10 and row[1] in SIDES]


def rows_of(markdown):
    """Cells of the body rows of all tables."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(
    ("general", "verdict"),
    [
        (0.000, "non-inferior"),
        (0.009, "inferior by more than the margin"),
        (0.005, "not shown"),
        (-0.01, "non-inferior; superior"),
    ],
)
def test_each_side_of_the_margin(tmp_path, general, verdict):
    effects = {"tspt": (general, -0.3), "one_stage": (0.0, -0.2)}
    write_study(tmp_path, effects, noise=0.001, extras=False)
    text = page_of(tmp_path, "comparisons")
    assert verdicts_of(text)[1] == verdict
    assert ("byte): shown." in text) == ("non-inferior" in verdict)
    wide = page_of(tmp_path, "comparisons", margin=0.02)
    assert verdicts_of(wide)[1].startswith("non-inferior")


def test_no_difference_is_not_shown_and_a_loss_is_inferior(tmp_path):
    effects = {"tspt": (0.0, -0.2), "one_stage": (0.0, -0.2), "better": (0.0, -0.4)}
    write_study(tmp_path, effects, extras=False)
    text = page_of(tmp_path, "comparisons")
    assert verdicts_of(text)[0] == "not shown"
    assert "byte): not shown." in text
    text = page_of(tmp_path, "comparisons", control="better")
    assert verdicts_of(text)[0] == "inferior"


def test_one_seed_shows_nothing(tmp_path):
    write_study(tmp_path, {"tspt": (0.0, -0.4), "one_stage": (0.0, -0.2)}, seeds=1, extras=False)
    text = page_of(tmp_path, "comparisons")
    assert verdicts_of(text)[:2] == ["not shown (one seed)"] * 2
    assert "inf" not in text.replace("inferior", "")


def test_the_same_difference_with_every_seed_is_not_certainty(tmp_path):
    """Seeds that change nothing are one seed: no interval, no p of Student's test, no verdict."""
    # So small a difference that rounding of the levels is a part of it.
    effects = {"tspt": (0.0, -0.4), "one_stage": (0.0, -0.399), "twin": (0.0, -0.4)}
    write_study(tmp_path, effects, seeds=3, noise=0.0, extras=False)
    text = page_of(tmp_path, "comparisons")
    assert verdicts_of(text)[:2] == ["not shown (equal for all seeds)"] * 2
    rows = {(row[0], row[1]): row for row in rows_of(text) if len(row) == 10}
    assert rows["one_stage", "domain"][3:9] == ["-0.0010", "-", "-", "-", "0.2500", "-"]
    assert rows["twin", "domain"][3:9] == ["+0.0000", "-", "-", "-", "1.0000", "1.0000"]
    assert rows["twin", "domain"][9] == "not shown (equal for all seeds)"
    # The levels of the seeds differ, so these still have intervals.
    table = {row[0]: row for row in rows_of(page_of(tmp_path, "table"))}
    assert re.fullmatch(r"1\.\d{4} \[.*\]", table["tspt"][4])


def test_a_test_that_is_not_defined_still_counts_in_its_family():
    def found(other, values):
        return ArmComparison("a", other, "domain", (0, 1, 2), (), paired_t(values), None, 0.25)

    family = [found("same", [0.1] * 3), found("far", [0.1, 0.12, 0.11])]
    same, far = adjust(family, "base")
    assert same.adjusted == (None, 0.5)
    assert far.adjusted == (pytest.approx(2 * far.found.p), 0.5)


def test_documents_that_all_say_the_same_give_no_interval(tmp_path):
    write_study(tmp_path, {"tspt": (0, -0.4), "one_stage": (0, -0.2)}, seeds=3, noise=0.0)
    for path in tmp_path.glob("*/documents.json"):
        documents = json.loads(path.read_text())
        level = -0.4 if path.parent.name.startswith("tspt") else -0.2
        even = {n: [[(2 + level) * size, size] for _, size in d] for n, d in documents.items()}
        path.write_text(json.dumps(even))
    found = compare_arms(read_planned(configure(tmp_path)), "tspt", "one_stage", "domain", METHOD)
    assert found.found.mean == pytest.approx(-0.2 / math.log(2))
    assert found.over_documents is None
    assert found.found.p is None
    assert found.signs == 0.25


def test_arms_that_were_planned_with_fewer_seeds(tmp_path):
    effects = {"tspt": (0, -0.4), "one_stage": (0, -0.2), "few": (0, 0), "other": (0, 0)}
    write_study(tmp_path, effects, seeds=3, extras=False)
    for name in ("few-1", "few-2", "other-2"):
        remove(tmp_path / name)
    assert read_planned(configure(tmp_path)).missing == (("few", 1), ("few", 2), ("other", 2))
    options = {"arm_seeds": {"few": [0], "other": [1, 0]}}
    assert read_planned(configure(tmp_path, **options)).missing == ()
    table = page_of(tmp_path, "table", **options)
    assert "Every run of every arm and seed is present" in table
    assert ["few", "planned with seeds 0"] in rows_of(table)
    assert ["other", "planned with seeds 0, 1"] in rows_of(table)
    # What is planned of one arm is expected of it, and of no other one.
    options = {"arm_seeds": {"few": [0, 7], "other": [0, 1]}, "seeds": [0, 1, 2]}
    assert read_planned(configure(tmp_path, **options)).missing == (("few", 7),)
    options = {"arm_seeds": {"never": [0, 1], "few": [0], "other": [0, 1]}, "arms": ["never"]}
    assert read_planned(configure(tmp_path, **options)).missing == (("never", 0), ("never", 1))
    write_run(tmp_path / "few-7", "few", 7, SETS, SETS)
    options = {"arm_seeds": {"few": [0, 7], "other": [0, 1]}}
    assert read_planned(configure(tmp_path, **options)).missing == ()


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"arm_seeds": {"fwe": [0]}},
            r"arm_seeds\.fwe: no such arm; the arms are base, few, one_sta",
        ),
        ({"arm_seeds": {"few": [1]}}, r"arm_seeds\.few=\[1\]: few-0 has seed 0; add it, or omit"),
        (
            {"grown_from": {"grwn": "base-0"}},
            r"grown_from\.grwn: no run starts .* folders: grown-0",
        ),
        ({"grown_from": {"few-0": "base-0"}}, r"grown_from\.few-0: .*it is a run itself"),
        (
            {"grown_from": {"grown-0": "bas"}},
            r"grown_from\.grown-0=bas: not one of the compared runs",
        ),
        ({"grown_from": {"grown-0": "few-0"}}, "few-0 starts from few-0, in a circle"),
    ],
)
def test_plans_that_do_not_fit_the_runs_are_refused(tmp_path, options, message):
    write_study(tmp_path, {"tspt": (0, 0), "one_stage": (0, 0)}, seeds=1, extras=False)
    write_run(tmp_path / "few-0", "few", 0, SETS, SETS, starts_from="grown-0")
    with pytest.raises(ValueError, match=message):
        read_planned(configure(tmp_path, **options))


def test_a_grown_model_goes_back_to_the_run_it_was_made_of(tmp_path):
    """Its runs start below the base, since growth changes what is lost per byte."""
    root = write_study(tmp_path, {"tspt": (0, -0.4), "one_stage": (0, -0.2)}, seeds=2)
    begun = {name: value - 0.5 for name, value in SETS.items()}
    first = {name: value - 0.6 for name, value in SETS.items()}
    after = {name: value - 0.9 for name, value in SETS.items()}
    rng = np.random.default_rng(2)
    for seed in range(2):
        for arm, before, reached, origin in (
            ("grown_s1", begun, first, f"grown-{seed}"),
            ("grown_tspt", first, after, f"grown_s1-{seed}"),
        ):
            write_run(root / f"{arm}-{seed}", arm, seed, before, reached, starts_from=origin)
            write_documents(root / f"{arm}-{seed}", reached, rng)
    unknown = read_planned(configure(root))
    assert summarize_arm(unknown, "grown_tspt", METHOD).changes["domain"] is None
    assert "no change computed: no run grown_s1-0, or no start of it" in page_of(root, "table")
    options = {"grown_from": {"grown-0": "base-0", "grown-1": "base-0"}}
    study = read_planned(configure(root, **options))
    for arm, change in (("grown_s1", -0.6), ("grown_tspt", -0.9)):
        changes = summarize_arm(study, arm, METHOD).changes
        assert changes["domain"].mean == pytest.approx(change, abs=0.01)
        assert changes["general"].mean == pytest.approx(change, abs=0.01)
    assert summarize_arm(study, "tspt", METHOD) == summarize_arm(unknown, "tspt", METHOD)
    table = page_of(root, "table", **options)
    assert ["grown-0", "made of run base-0"] in rows_of(table)
    assert "no change computed" not in table


def test_missing_unfinished_and_diverged_runs_are_named(tmp_path):
    root = write_study(tmp_path, {"tspt": (0, -0.4), "one_stage": (0, -0.2), "late": (0, 0)},
                       seeds=3, extras=False)  # fmt: skip
    remove(root / "one_stage-1")
    (root / "tspt-2" / "model").rmdir()
    (root / "late-0" / "metrics.jsonl").unlink()
    rows = [evaluation_row(0, "a", SETS), evaluation_row(9, "a", SETS | {"geo_en": math.nan})]
    write_rows(root / "late-1", rows)
    options = {"arms": ["tspt", "never"], "seeds": [3]}
    study = read_planned(configure(root, **options))
    assert set(study.missing) == {("one_stage", 1)} | {
        (arm, seed)
        for arm in ("tspt", "one_stage", "late", "never", "base")
        for seed in range(4)
        if seed == 3 or (arm == "never")
    }
    table = page_of(root, "table", **options)
    problems = dict(row for row in rows_of(table) if len(row) == 2)
    assert problems["one_stage, seed 1"] == "no run"
    assert problems["tspt-2"] == "not counted; unfinished: last evaluated at step 40"
    assert problems["late-0"] == "not counted; unfinished: no evaluation yet"
    assert problems["late-1"] == "not counted; diverged: the last loss of geo_en is not finite"
    arms = [row[:2] for row in rows_of(table.split("##")[0])]
    assert arms[2:] == [["base", "1"], ["tspt", "2"], ["never", "0"], ["one_stage", "2"],
                        ["late", "1"]]  # fmt: skip
    comparisons = page_of(root, "comparisons", **options)
    assert "| 1 (unpaired: 1, 2) |" in comparisons


def test_a_complete_study_says_so(study_folder):
    assert "Every run of every arm and seed is present and finished." in page_of(
        study_folder, "table"
    )


def test_stages_in_runs_of_their_own_are_one_history(tmp_path):
    middle = {name: value - 0.1 for name, value in SETS.items()}
    after = {name: value - 0.3 for name, value in SETS.items()}
    write_run(tmp_path / "base-0", "base", 0, SETS, SETS, starts_from=None)
    write_run(tmp_path / "s1-0", "s1_only", 0, SETS, middle)
    write_run(tmp_path / "tspt-0", "tspt", 0, middle, after, starts_from="s1-0")
    study = read_planned(configure(tmp_path))
    run = study.of("tspt")[0]
    assert study.start(run).bits == SETS
    whole = study.history(run)
    assert [e.step for e in whole.evaluations] == list(range(0, 81, 10))
    assert whole.borders == (15, 40, 55)
    assert summarize_arm(study, "tspt", METHOD).changes["domain"].mean == pytest.approx(-0.3)
    (tmp_path / "s1-0" / "model").rmdir()
    text = page_of(tmp_path, "table")
    assert ["tspt-0", "no change computed: no run s1-0, or no start of it"] in rows_of(text)


def test_exposures(study_folder):
    study = read_planned(configure(study_folder))
    found = recall(study, "tspt", invented=True, confidence=0.95)
    assert [r.exposures for r in found] == [0, 1, 4, 16, 64]
    assert {r.facts for r in found} == {8}
    margins = [r.margin.mean for r in found]
    assert margins == sorted(margins)
    assert found[0].margin.mean == pytest.approx(-0.05)
    assert found[0].accuracy.mean == pytest.approx(3 / 8)
    assert recall(study, "tspt", invented=False, confidence=0.95) == []
    assert recall(study, "base", invented=True, confidence=0.95) == []


def test_arms_that_differ_in_a_number_are_joined():
    arms = ["replay_50", "replay_0", "replay_6", "tspt", "one_stage_0.3", "one_stage_0.25", "s2_1"]
    assert numbered_curves(arms) == [
        ["replay_0", "replay_6", "replay_50"],
        ["one_stage_0.25", "one_stage_0.3"],
    ]


class References(HTMLParser):
    """What a page would load or run."""

    def __init__(self):
        super().__init__()
        self.found, self.tags, self.depth = [], set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.found += [v for k, v in attributes if k in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img"):
            self.depth.append(tag)

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag


def test_the_page_holds_its_pictures_and_needs_nothing_else(report, tmp_path):
    report.write(tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    names = ["border.png", "differences.png", "exposures.png", "forgetting.png", "frontier.png"]
    assert files == sorted([*names, *FILES])
    page = (tmp_path / "out" / "report.html").read_text()
    reader = References()
    reader.feed(page)
    assert not reader.depth
    assert all(source.startswith("data:image/png;base64,") for source in reader.found)
    inside = {base64.b64decode(source.split(",")[1]) for source in reader.found}
    assert inside == {(tmp_path / "out" / name).read_bytes() for name in names}
    assert all(png.startswith(b"\x89PNG") for png in inside)
    assert not reader.tags & {"script", "link", "iframe"}
    assert "url(" not in page
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    for arm in EFFECTS:
        assert f"<td>{arm}</td>" in page


def test_equal_folders_give_equal_bytes(study_folder, report, tmp_path):
    report.write(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "table.md").write_text("an earlier one")
    report_of(study_folder).write(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_text_of_arms_is_escaped():
    blocks = [Heading("<b>"), "a < b", Table(("x",), (("<b>|y",),))]
    page = to_html("<t>", blocks)
    assert "<b>" not in page
    assert page.count("&lt;b&gt;") == 2
    assert "| <b>/y |" in to_markdown(blocks)


def command(monkeypatch, *arguments):
    """What `python -m scripts.report` does, in this process: a new one takes seconds to start."""
    monkeypatch.setattr(sys, "argv", ["scripts/report.py", *arguments])
    scripts.report.main()


def ordinary(root, name, after):
    write_run(root / name, name, 0, SETS, after, starts_from=None)
    (root / name / "study.json").unlink()
    return str(root / name)


def test_runs_of_no_study_by_the_command(tmp_path, monkeypatch, capsys):
    lower = {name: value - 0.1 for name, value in SETS.items()}
    runs = [ordinary(tmp_path, "run_1", lower), ordinary(tmp_path, "run_2", SETS)]
    arguments = [f"runs=[{','.join(runs)}]", f"out={tmp_path / 'out'}"]
    command(monkeypatch, *arguments)
    assert "report.html: 2 runs of 2 arms" in capsys.readouterr().out
    table = (tmp_path / "out" / "table.md").read_text()
    rows = {row[0]: row for row in rows_of(table)}
    assert rows["run_1"][2:] == ["0.003", "1.6500", "1.9000", "-0.1000", "-0.1000"]
    assert rows["run_2"][5:] == ["+0.0000", "+0.0000"]
    assert "Every run" in table
    assert "so nothing is compared" in (tmp_path / "out" / "comparisons.md").read_text()
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == ["border.png", "forgetting.png", "frontier.png"]


def test_ordinary_runs_can_be_compared_by_name(tmp_path):
    runs = [ordinary(tmp_path, name, SETS) for name in ("a", "b", "c")]
    text = page_of(runs, "comparisons", candidate="a", control="b")
    assert "Primary: a against b" in text
    assert "not shown" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs=nowhere", "out=x"], "error: runs=nowhere: no such folder"),
        (["out=x"], "error: runs: must be given"),
        (["runs=[a]", "out=x", "curves=[[a,b],[c]]"], "error: runs: a has no config.yaml"),
        (["runs=a", "out=x", "margn=0.1"], "no such option: margn; did you mean margin?"),
        (
            ["runs=a", "out=x", "arm_seeds={few:[0,x]}"],
            "error: arm_seeds=x: must be a whole number",
        ),
        (["runs=a", "out=x", "grown_from=[a]"], "type grown_from='{name: value}'"),
        (["runs=a", "out=x", "arm_seeds={few:[0,0]}"], "error: arm_seeds.few=[0, 0]: must be"),
        (["runs=a", "out=x", "arm_seeds={few:[0]}"], "error: runs=a: no such folder"),
    ],
)
def test_a_command_that_cannot_be_carried_out_is_answered(
    tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, *arguments)
    assert message in str(stopped.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runs", 3),
        ("runs", ["a", 1]),
        ("out", ""),
        ("outcome", "median"),
        ("margin", -0.1),
        ("margin", math.nan),
        ("confidence", 1.0),
        ("confidence", 0.0),
        ("samples", 10),
        ("seed", -1),
        ("candidate", "one_stage"),
        ("candidate", "base"),
        ("arms", ["a", "b", "a"]),
        ("seeds", [0, 1, 0]),
        ("seeds", [0, -1]),
    ],
)
def test_wrong_fields_are_refused(field, value):
    given = asdict(ReportConfig(runs="runs", out="out")) | {field: value}
    with pytest.raises(ValueError, match=f"^{field}="):
        ReportConfig(**given)


@pytest.mark.parametrize("seeds", [[], [0, 1, 1], [-1], [2, -3]])
def test_wrong_seeds_of_one_arm_are_refused(seeds):
    with pytest.raises(ValueError, match=r"^arm_seeds\.few=\["):
        ReportConfig(runs="runs", out="out", arm_seeds={"tspt": [0], "few": seeds})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "metrics.jsonl",
            '{"step": 0}\n{"step"\n',
            r"a.metrics.jsonl, line 2 is not a valid log record: '\{\"step\"",
        ),
        ("metrics.jsonl", '{"step": 0, "eval": {"x": {}}}\n', r"metrics.jsonl, line 1"),
        ("metrics.jsonl", "[1]\n3\n", r"metrics.jsonl, line 2"),
        ("config.yaml", "a: [1\n", r"a.config.yaml: .*line 2"),
        ("config.yaml", "seed: 0\n", r"a.config.yaml: not the configuration of a run"),
        ("study.json", '{\n"arm": "x",\n', r"a.study.json, line 3: not JSON"),
        ("study.json", "[]", r"study.json, line 1: must be a JSON object"),
        (
            "study.json",
            '{"seed": 0, "starts_from": null, "lr": 1}',
            r"study.json: arm=None must be",
        ),
        ("study.json", '{"arm": "x", "seed": "0"}', r"study.json: seed='0' must be a whole number"),
        ("study.json", '{"arm": "x", "seed": 0, "starts_from": "a", "lr": 1}', "in a circle"),
        ("documents.json", '{"geo_en": [[1]]}', r"a.documents.json: geo_en must be pairs"),
        ("documents.json", '{"geo_en": 3}', r"documents.json: geo_en must be pairs"),
        ("documents.json", '{"geo_en": [[1, 0]]}', r"documents.json: geo_en must be pairs"),
        ("documents.json", '{"geo_en": [["x", 0]]}', r"documents.json: geo_en must be pairs"),
        ("probes.json", "[\n{},\n]", r"a.probes.json, line 3: not JSON"),
        ("probes.json", '[{"exposures": 1}]', r"probes.json, entry 0: not a probe"),
        ("probes.json", "{}", r"probes.json, line 1: must be a JSON list"),
    ],
)
def test_malformed_files_are_named(tmp_path, file, content, message):
    write_run(tmp_path / "a", "x", 0, SETS, SETS, starts_from=None)
    (tmp_path / "a" / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_planned(configure(tmp_path))


def test_a_torn_last_line_is_of_a_run_that_goes_on(tmp_path):
    write_run(tmp_path / "a", "x", 0, SETS, SETS)
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss_na')
    (run,) = read_runs([tmp_path / "a"])
    assert run.final.step == 40


def test_folders_that_hold_no_runs(tmp_path):
    with pytest.raises(ValueError, match=r"runs=.*nowhere: no such folder"):
        find_runs(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="contains no run folders"):
        find_runs(str(tmp_path))
    with pytest.raises(ValueError, match=r"runs=\[\]: name at least one"):
        find_runs([])
    write_run(tmp_path / "a", "x", 0, SETS, SETS)
    (tmp_path / "a" / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"runs: .*a has no config.yaml and metrics.jsonl"):
        find_runs([str(tmp_path / "a")])
    with pytest.raises(ValueError, match=r"no run can be counted \(a: unfinished"):
        read_planned(configure(tmp_path))
    write_run(tmp_path / "b", "x", 1, SETS, SETS)
    with pytest.raises(ValueError, match="curves: no arm replay_7; there are "):
        read_planned(configure(tmp_path, curves=[["x", "replay_7"]]))
    out = tmp_path / "file"
    out.write_text("")
    with pytest.raises(ValueError, match="cannot be a folder; name another"):
        report_of(tmp_path).write(out)


def edit(path, change):
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        write_run(tmp_path / name, "x", seed, SETS, SETS)
        write_documents(tmp_path / name, SETS, np.random.default_rng(0))
    path = tmp_path / "b" / "documents.json"
    before = path.read_text()
    edit(path, lambda content: content["geo_zh"].pop())
    with pytest.raises(ValueError, match="of a and b: the documents of geo_zh differ"):
        read_planned(configure(tmp_path))
    path.write_text(before)
    config = tmp_path / "b" / "config.yaml"
    edit(config, lambda content: content["evaluation"].update(chunk_bytes=64))
    with pytest.raises(ValueError, match=r"a and b differ in the evaluation\.chunk_bytes"):
        read_planned(configure(tmp_path))
    edit(config, lambda content: content["data"].update(domain={"geo_en": 1.0}))
    with pytest.raises(ValueError, match=r"a and b differ in the data\.general and data\.domain"):
        read_planned(configure(tmp_path))
    edit(tmp_path / "b" / "study.json", lambda content: content.update(seed=0))
    with pytest.raises(ValueError, match="are both arm x, seed 0"):
        read_planned(configure(tmp_path))


def test_what_is_unfinished_or_not_measured_does_not_stop_the_others(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        write_run(tmp_path / name, "x", seed, SETS, SETS, finished=name != "b")
        if name != "c":
            write_documents(tmp_path / name, SETS, np.random.default_rng(0))
    write_documents(tmp_path / "b", {"geo_en": 1.0}, np.random.default_rng(1))
    config = configure(tmp_path)
    study = build_study(read_runs(find_runs(config.runs)), base=config.base)
    assert [run.name for run in study.runs] == ["a"]
    assert study.excluded["b"].startswith("unfinished")
    assert study.excluded["c"].startswith("not measured, unlike others")
