"""docs/compatibility.md: results of model folders of many families, compared with transformers.

    python -m experiments.checks.compatibility ../shared/cases/folders > docs/compatibility.md

The folders are built by the scripts in the named place: small, with random weights and the keys,
tokenizers and chat templates of real ones. Each is opened, trained for a few steps, exported and
asked; `transformers` is the reference. Exits with 1 if anything differs in silence. Further
arguments name some of the folders.
"""

import importlib
import platform
import re
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import transformers

from data.prepare.documents import PrepareConfig, prepare
from pretrained.safetensors_folder import load_pretrained
from tests.helpers.runs import configure
from tokenizer.chat import template_of
from tokenizer.tokenizer import Tokenizer
from train import train

COLUMNS = ("opens", "logits", "token ids", "trains", "exports", "chat ids", "SFT ids")
POINTS = {"token ids": "tokenizer", "exports": "export", "chat ids": "chat", "SFT ids": "sft"}
"""Columns that check.py has a point for."""
SOURCES = ("general_en", "general_zh", "geo_en", "geo_zh")
WRONG = "**silently wrong**"

HEAD = """# Which model folders can be used

Made by `python -m experiments.checks.compatibility <cases> > docs/compatibility.md`
with transformers {transformers}, torch {torch} and Python {python}, on a CPU in fp32.
`<cases>` are the builders of small folders with random weights and the config.json, tokenizers,
chat templates and stumbling blocks of real ones; no pretrained weights went through this table.
The rule: a folder is equal to
transformers, or refused with the name of what is not supported.

{words}

Keys of config.json: every key is implemented, known to be harmless, or refused by name with its
value (`model/config_keys.py`). An unknown key passes if it is null, or a text whose name does not
speak of a part of the network; an unknown number, boolean, list or object is refused. Tensors:
`model.safetensors` counts where it exists, else the shards of the index; names, shapes and dtypes
(fp64, fp32, fp16, bf16) are checked when a folder is opened, finite values where rows are read,
before a run or an export starts.

"""


WORDS = {
    "opens": "opened here; in the column of the logits: transformers does not open the folder",
    "equal": (
        "as in transformers. Logits: of 75 tokens, beyond the window, to 1e-5 of the largest. "
        "Token ids: of {texts} difficult texts. Trains, exports: after three steps of training "
        "(`model=pretrained init_from=<folder>`) and after `scripts.export`, transformers opens a "
        "folder with the same logits, and with all tokens, EOS ids, padding and generation "
        "settings of the first one. Chat ids: of the prompt of chat, serve and generate. SFT ids: "
        "of a conversation and its mask, against `apply_chat_template`"
    ),
    "refused": (
        "a sentence names what is not supported, before anything is written; the last column "
        "has the sentence"
    ),
    "-": "the folder has nothing of this kind, or is refused altogether",
    WRONG: "another result than that of transformers, without a word. There must be none",
}


def main() -> None:
    """Print the page."""
    cases = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(cases))
    build, check = importlib.import_module("build"), importlib.import_module("check")
    # The template that instruction tuning writes is that of the folder, or Mistral's.
    check.product.template_written_after_sft = lambda folder: (
        template_of(Tokenizer.open(folder)).source
    )
    words = ["| word | meaning |", "|---|---|"]
    words += [f"| {word} | {meaning} |" for word, meaning in WORDS.items()]
    words = "\n".join(words).format(texts=len(check.TEXTS))
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    print(HEAD.format(**versions, python=platform.python_version(), words=words))
    print(f"| folder | {' | '.join(COLUMNS)} | refused, because |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    wrong = 0
    for name in sys.argv[2:] or build.CASES:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / name
            with redirect_stdout(sys.stderr):
                build.CASES[name].build(folder)
                cells, reasons = judge(folder, build.CASES[name], check)
        wrong += WRONG in " ".join(cells.values())
        row = " | ".join(cells.get(column, "-") for column in COLUMNS)
        print(f"| `{name}`: {build.CASES[name].right} | {row} | {'; '.join(reasons)} |", flush=True)
    raise SystemExit(wrong > 0)


def judge(folder: Path, case: Any, check: Any) -> tuple[dict[str, str], list[str]]:
    """The cells of a folder's row, and what was refused."""
    verdicts = check.check(folder, case)
    for point, verdict in verdicts.items():
        print(f"{folder.name:28} {point:10} {verdict}", flush=True)
    reasons: list[str] = []
    cells = {column: cell(verdicts.get(point, "-")) for column, point in POINTS.items()}
    network = verdicts.get("network", "-")
    if " refused" in network:
        reasons.append(reason(network, folder))
        return {"opens": "refused", "exports": cells["exports"]}, reasons
    cells["opens"] = "yes"
    cells["logits"] = "opens" if "transformers does not" in network else cell(network)
    cells["trains"], refusal = trains(folder, check)
    found = [refusal, *(v for p, v in verdicts.items() if " refused" in v and p != "network")]
    reasons += dict.fromkeys(reason(each, folder) for each in found if each)
    return cells, list(reasons)


def cell(verdict: str) -> str:
    """A verdict of check.py as a word."""
    if verdict == "-":
        return "-"
    if " refused" in verdict:
        return "refused"
    return "equal" if verdict.startswith("RIGHT") else f"{WRONG}: {verdict.removeprefix('WRONG ')}"


def reason(verdict: str, folder: Path) -> str:
    """Text of a refusal without paths, for a cell of a table."""
    text = re.sub(r"^(RIGHT|WRONG) refused(, but does not name [^:]*)?: ", "", verdict)
    text = text.replace(str(folder), "<folder>").removeprefix("<folder>: ").replace("|", "\\|")
    text = text.replace("\n", " ")
    return text if len(text) <= 160 else text[:160] + "..."


def trains(folder: Path, check: Any) -> tuple[str, str]:
    """Train three steps from a folder and compare what is written with transformers.

    Returns:
        a cell, and the refusal if there is one.
    """
    root = folder.parent / "data"
    try:
        write_data(folder, root, check)
        train(run(folder, root))
    except ValueError as error:
        return "refused", str(error)
    out = folder.parent / "run" / "model"
    apart = check.difference(load_pretrained(out), check.peer(out), out)
    if apart > check.TOLERANCE:
        return f"{WRONG}: logits differ by {apart:.1e}", ""
    if lost := check.generation(folder).keys() - check.generation(out).keys():
        return f"{WRONG}: lost {', '.join(sorted(lost))}", ""
    if not check.eos_ids(folder) <= check.eos_ids(out):
        return f"{WRONG}: lost EOS ids", ""
    shutil.rmtree(folder.parent / "run")
    return "equal", ""


def write_data(folder: Path, root: Path, check: Any) -> None:
    """A small source, prepared with the tokenizer of a folder."""
    root.mkdir()
    lines = [f"{number}. {text}" for number in range(20) for text in check.TEXTS if text.strip()]
    (root / "text.txt").write_text(" ".join("\n".join(lines).split("\r")), encoding="utf-8")
    prepare(
        PrepareConfig(
            name="text",
            inputs=[str(root / "text.txt")],
            out=str(root / "text"),
            tokenizer=str(folder),
            txt_documents="line",
            held_out_fraction=0.0,
            workers=1,
        ),
        progress=False,
    )


def run(folder: Path, root: Path) -> Any:
    """The configuration of a run of three steps."""
    return configure(
        *("+experiment=tspt_stage1", "model=pretrained", f"init_from={folder}", "device=cpu"),
        *("data=bilingual", f"data.root={root}", f"data.tokenizer={folder}"),
        *(f"data.sources.{name}=text" for name in SOURCES),
        *("batch.row_length=32", "batch.tokens_per_step=64", "batch.micro_batch_rows=2"),
        *("curriculum.stages.adaptation.tokens=192", "logging.peak_tflops=1"),
        *(f"runs_folder={folder.parent}", "name=run", "checkpoint.export_dtype=float32"),
    )


if __name__ == "__main__":
    main()
