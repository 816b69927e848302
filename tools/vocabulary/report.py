"""report.md and report.png of a grown vocabulary."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizer.expansion.expand import Expansion
from tools.vocabulary.init_rows import Init
from tools.vocabulary.measure import Compression, Growth, HeadCost

EXAMPLES = 8
LONGEST = 20


@dataclass(frozen=True)
class Summary:
    """What a growth has come to.

    Attributes:
        init: how the new rows that were written begin.
        origins: the lists that gave candidates.
        compressions: one per corpus.
        losses: way to begin -> corpus -> bits per byte before any training; may be empty.
    """

    init: Init
    origins: list[str]
    expansion: Expansion
    growth: Growth
    compressions: list[Compression]
    losses: dict[str, dict[str, float]]
    cost: HeadCost


def report(summary: Summary) -> str:
    """The whole report in Markdown."""
    sections = [
        ["# A grown vocabulary", *_sizes(summary)],
        ["## Tokens per text", *_compression(summary.compressions)],
        ["## Text that changed", *_changes(summary.compressions)],
        ["## Candidates", *_candidates(summary)],
        ["## Longest new pieces", *_longest(summary)],
        ["## Bits per byte before any training", *_losses(summary)],
        ["## What the larger head costs", *_cost(summary)],
    ]
    return "\n\n".join(paragraph for section in sections for paragraph in section) + "\n"


def _sizes(summary: Summary) -> list[str]:
    expansion, base, grown = summary.expansion, summary.growth.base, summary.growth.grown
    return [
        _table(
            ("what", "number"),
            [
                ("pieces of the base", base.vocab_size),
                ("new pieces", len(expansion.pieces)),
                ("reserved", len(expansion.reserved)),
                ("pieces now", grown.vocab_size),
                ("rows of embedding and head", summary.cost.rows),
                ("rows that stand for no piece", summary.cost.rows - grown.vocab_size),
            ],
        ),
        f"New rows of the embedding: {summary.init.embedding}; of the head: {summary.init.head}.",
        "Every new piece was checked to be reachable: encoded by itself it gives its own id.",
    ]


def _compression(compressions: Sequence[Compression]) -> list[str]:
    rows = [_compressed(c.name, c.kind, [c]) for c in compressions]
    scripts = [c.script for c in compressions]
    for script in dict.fromkeys(scripts):
        if scripts.count(script) > 1:
            alike = [c for c in compressions if c.script == script]
            rows.append(_compressed(f"all {script}", "together", alike))
    header = (
        *("corpus", "text", "bytes", "tokens before", "after", "ratio"),
        *("characters per token", "bytes per token"),
    )
    return [_table(header, rows)]


def _compressed(name: str, kind: str, parts: Sequence[Compression]) -> Sequence[object]:
    before, after = sum(c.before for c in parts), sum(c.after for c in parts)
    characters, size = sum(c.characters for c in parts), sum(c.utf8_bytes for c in parts)
    return (
        *(name, kind, size, before, after, f"{after / before:.3f}"),
        f"{characters / before:.3f} -> {characters / after:.3f}",
        f"{size / before:.3f} -> {size / after:.3f}",
    )


def _changes(compressions: Iterable[Compression]) -> list[str]:
    rows = [
        (
            c.name,
            f"{c.documents - c.documents_unchanged} of {c.documents}",
            f"{c.share_unchanged:.2%}",
            ", ".join(f"{_code(p)} (was {_code(' '.join(s))}) x {n}" for p, s, n in c.met)
            or "none",
        )
        for c in compressions
    ]
    return [
        _table(("corpus", "documents changed", "bytes in unchanged tokens", "most met"), rows),
        "A token is unchanged where the same piece stands at the same place as before.",
    ]


def _candidates(summary: Summary) -> list[str]:
    expansion = summary.expansion
    rows: list[Sequence[object]] = []
    for origin in summary.origins:
        taken = [new.piece for new in expansion.pieces if origin in new.origins]
        rows.append((f"accepted, from {origin}", len(taken), _examples(taken)))
    parts = [new.piece for new in expansion.pieces if not new.origins]
    rows.append(("accepted, as a part of others", len(parts), _examples(parts)))
    rows += [
        (f"refused: {rule}", len(pieces), _examples(pieces))
        for rule, pieces in expansion.refused.items()
    ]
    return [
        _table(("candidates", "number", "examples"), rows),
        "What the rules mean: `tokenizer.expansion.rules.Rules` and "
        "`tokenizer.expansion.expand.Expansion`. A piece of "
        "several origins is counted under each.",
    ]


def _longest(summary: Summary) -> list[str]:
    longest = sorted(summary.expansion.pieces, key=lambda new: (-len(new.piece), new.id))
    return [", ".join(_code(new.piece) for new in longest[:LONGEST])]


def _losses(summary: Summary) -> list[str]:
    if not summary.losses:
        return ["Not measured (loss_bytes=0)."]
    names = [c.name for c in summary.compressions]
    rows = [(way, *(f"{bits[n]:.4f}" for n in names)) for way, bits in summary.losses.items()]
    return [
        _table(("new rows", *names), rows),
        "The same text for all; `no growth` is the base with its own tokenizer.",
    ]


def _cost(summary: Summary) -> list[str]:
    cost, base = summary.cost, summary.cost.base_flops_per_token
    growth = cost.flops_per_token / base
    rows = [
        ("parameters", f"+{cost.parameters:,}"),
        ("memory in bfloat16, MiB", f"+{cost.parameters * 2 / 2**20:,.1f}"),
        ("memory in training (fp32 weight, gradient, two moments), MiB",
         f"+{cost.training_bytes / 2**20:,.1f}"),
        ("training FLOPs per token (attention scores not counted)",
         f"{base:,} -> {cost.flops_per_token:,} (x {growth:.3f})"),
    ]  # fmt: skip
    rows += [
        (f"training FLOPs per byte of {c.name}", f"x {growth * c.after / c.before:.3f}")
        for c in summary.compressions
    ]
    return [_table(("what", "change"), rows)]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header)]
    lines += [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _examples(pieces: Sequence[str]) -> str:
    """Some of them, from the beginning to the end."""
    step = max(1, len(pieces) // EXAMPLES)
    return " ".join(_code(piece) for piece in pieces[::step][:EXAMPLES])


def _code(text: str) -> str:
    """As code in a table cell, whatever it holds."""
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    shown = shown.replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def picture(summary: Summary) -> bytes:
    """Tokens that are left per corpus, and bits per byte before any training, as a PNG."""
    # Imported here, because matplotlib takes half a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = [c.name for c in summary.compressions]
    bars = left.barh(names, [c.after / c.before for c in summary.compressions])
    left.bar_label(bars, fmt="%.3f")
    left.axvline(1, color="black", linewidth=0.8)
    left.set(xlabel="tokens after / before", xlim=(0, 1.15))
    left.invert_yaxis()
    ways = list(summary.losses)
    height = 0.8 / max(1, len(names))
    for number, name in enumerate(names if ways else ()):
        at = [place + number * height for place in range(len(ways))]
        bits = [summary.losses[way][name] for way in ways]
        right.barh(at, bits, height=height, label=name)
    if ways:
        right.set_yticks([place + 0.4 - height / 2 for place in range(len(ways))], ways)
        right.invert_yaxis()
        right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4)
    right.set(xlabel="bits per byte before any training" if ways else "not measured")
    stream = io.BytesIO()
    figure.savefig(stream, dpi=130)
    return stream.getvalue()
