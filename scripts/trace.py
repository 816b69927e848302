"""Print the text behind a step or a row of a run, or every step that read a document.

python -m scripts.trace run=runs/<name> step=12 [full=true]
python -m scripts.trace run=runs/<name> row=190
python -m scripts.trace run=runs/<name> document=geo_en:123
"""

from itertools import groupby

from conf.command import command
from conf.schema import load_run
from data.rows.curriculum_config import REPLAY
from data.rows.trace import Passage, Piece, Reading, Trace, TraceConfig
from tokenizer.tokenizer import Tokenizer
from training.run.log import read_records
from training.run.resume import check_same_data, recorded_fingerprints
from training.sources import open_sources, open_tokenizer

SHOWN = 70
"""Characters shown of each end of a text without full=true."""


def print_rows(lookup: Trace, tokenizer: Tokenizer, rows: range, logged: dict, full: bool) -> None:
    """The rows of a step, or one of them, and the documents in each."""
    step = lookup.step_of_row(rows[0])
    stage, row_length = lookup.plan.stage_at(step - 1), lookup.plan.row_length
    record = logged.get(step)
    loss = f"loss {record['loss_nats']:.4f} nats per token" if record else "not logged"
    print(f"step {step} of {lookup.plan.steps}, stage {stage.name}, {loss}")
    losses = dict((record or {}).get("rows", []))
    if record and not losses:
        print("losses of rows were not logged; start a run with logging.row_losses=true for them")
    for row in rows:
        address = lookup.plan.row(row)
        again = (
            f", replayed from stage {stage.config.replay.of}"
            if address.counted_as == REPLAY
            else ""
        )
        loss = f", loss {losses[row]:.4f}" if row in losses else ""
        place = f"row {address.index} of {address.source}"
        print(f"\nrow {row}: {place}{again}, {row_length} tokens{loss}")
        for piece in lookup.pieces(row):
            of = f"{address.source}:{piece.document}"
            print(f"  {of} tokens {piece.start} to {piece.stop - 1} of {piece.length}")
            print(f"    {show(piece, tokenizer, full)}")


def show(piece: Piece, tokenizer: Tokenizer, full: bool) -> str:
    """The text of a piece between its borders: [BOS] and [EOS], or [cut] at a border of the row."""
    text = tokenizer.decode(piece.tokens.tolist())
    if not full:
        text = abridge(text)
    begin = "[cut]" if piece.start else "[BOS]"
    return f"{begin}{text}{'[EOS]' if piece.stop == piece.length else '[cut]'}"


def abridge(text: str) -> str:
    """Both ends of a text in one line."""
    left_out = len(text) - 2 * SHOWN
    if left_out > 20:
        text = f"{text[:SHOWN]} [... {left_out:,} characters ...] {text[-SHOWN:]}"
    return text.replace("\n", "\\n")


def print_document(lookup: Trace, tokenizer: Tokenizer, name: str, full: bool) -> None:
    """The steps that read a document, by epoch."""
    source, number = lookup.find(name)
    ids = lookup.document(source, number)
    print(f"{source}:{number}, {len(ids)} tokens")
    print(show(Piece(number, 0, len(ids), len(ids), ids), tokenizer, full))
    for passage in lookup.passages(source, number):
        where = f"rows {passage.rows.start} to {passage.rows.stop - 1} of {source}"
        print(
            f"\nepoch {passage.epoch}: {where}, from token {passage.tokens.start:,} of its stream"
        )
        for reading in passage.readings:
            print_reading(reading, lookup)
        print_rest(passage, lookup.plan.consumed()[source])


def print_rest(passage: Passage, consumed: int) -> None:
    """Rows of a document that the run did not read in their turn."""
    rows = passage.rows
    read = sum(len(reading.rows) for reading in passage.readings if not reading.replayed)
    earlier = min(rows.stop, consumed) - min(rows.start, consumed) - read
    later = rows.stop - max(rows.start, min(rows.stop, consumed))
    if earlier:
        print(f"  before this run began: {earlier} of the {len(rows)} rows")
    if later:
        print(f"  not reached by the end of this run: {later} of the {len(rows)} rows")


def print_reading(reading: Reading, lookup: Trace) -> None:
    """One line for each step."""
    again = " (replay)" if reading.replayed else ""
    for step, rows in groupby(reading.rows.tolist(), lookup.step_of_row):
        print(f"  step {step}, {reading.stage.name}{again}: rows {', '.join(map(str, rows))}")


def trace(config: TraceConfig) -> None:
    """Print the text of a step or row, or the readings of a document."""
    run = load_run(config.run)
    logged = read_records(run.folder).logged
    tokenizer = open_tokenizer(run.data.tokenizer)
    recorded = recorded_fingerprints(run.folder / "environment.json")
    sources = open_sources(run.data.root, run.data.sources, tokenizer, recorded)
    fingerprints = {name: source.fingerprint for name, source in sources.items()}
    check_same_data(run.folder / "environment.json", fingerprints)
    lookup = Trace(run.plan(), sources, run.seed)
    if config.document is not None:
        print_document(lookup, tokenizer, config.document, config.full)
        return
    if config.row is None:
        assert config.step is not None
        rows = lookup.rows_of_step(config.step)
    else:
        lookup.step_of_row(config.row)
        rows = range(config.row, config.row + 1)
    print_rows(lookup, tokenizer, rows, logged, config.full)


@command("trace", TraceConfig)
def main(config: TraceConfig) -> None:
    """Look up one step, row or document."""
    trace(config)


if __name__ == "__main__":
    main()
