"""Report of a grown vocabulary: report.md and report.png."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from tokenizer.expansion.expand import Expansion
from tools.vocabulary.init_rows import Init
from tools.vocabulary.measure import Compression, Growth, HeadCost

EXAMPLES = 8
LONGEST = 20


@dataclass(frozen=True)
class GrowthSummary:
    """Content of the report.

    Attributes:
        init: initialisation of the rows that were written.
        origins: names of the candidate lists.
        compressions: one per corpus.
        losses: initialisation -> corpus -> bits per byte before any training; may be empty.
    """

    init: Init
    origins: list[str]
    expansion: Expansion
    growth: Growth
    compressions: list[Compression]
    losses: dict[str, dict[str, float]]
    cost: HeadCost


def report(summary: GrowthSummary) -> str:
    """The whole report in Markdown."""
    sections = [
        ["# A grown vocabulary", *_sizes(summary)],
        ["## Tokens per text", *_compression(summary.compressions)],
        ["## Text that changed", *_changes(summary.compressions)],
        ["## Candidates", *_candidates(summary)],
        ["## Longest new pieces", *_longest(summary)],
        ["## Bits per byte before any training", *_losses(summary)],
        ["## Cost of the larger head", *_cost(summary)],
    ]
    return "\n\n".join(paragraph for section in sections for paragraph in section) + "\n"


def _sizes(summary: GrowthSummary) -> list[str]:
    expansion, base, grown = summary.expansion, summary.growth.base, summary.growth.grown
    return [
        _table(
            ("quantity", "number"),
            [
                ("pieces of the base", base.vocab_size),
                ("new pieces", len(expansion.pieces)),
                ("reserved", len(expansion.reserved)),
                ("pieces now", grown.vocab_size),
                ("rows of embedding and head", summary.cost.rows),
                ("padding rows", summary.cost.rows - grown.vocab_size),
            ],
        ),
        f"New rows of the embedding: {summary.init.embedding}; of the head: {summary.init.head}.",
        "Every new piece is reachable (checked): the tokenizer encodes its text as its id.",
    ]


def _compression(compressions: Sequence[Compression]) -> list[str]:
    rows = [_compressed(c.name, c.kind, [c]) for c in compressions]
    scripts = [c.script for c in compressions]
    for script in dict.fromkeys(scripts):
        if scripts.count(script) > 1:
            same = [c for c in compressions if c.script == script]
            rows.append(_compressed(f"all {script}", "together", same))
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
        _table(
            (
                "corpus",
                "documents changed",
                "bytes in unchanged tokens",
                "most frequent new pieces",
            ),
            rows,
        ),
        "A token is unchanged if the same piece is at the same position as before.",
    ]


def _candidates(summary: GrowthSummary) -> list[str]:
    expansion = summary.expansion
    rows: list[Sequence[object]] = []
    for origin in summary.origins:
        taken = [new.piece for new in expansion.pieces if origin in new.origins]
        rows.append((f"accepted, from {origin}", len(taken), _examples(taken)))
    parts = [new.piece for new in expansion.pieces if not new.origins]
    rows.append(("accepted, as a part of other pieces", len(parts), _examples(parts)))
    rows += [
        (f"refused: {rule}", len(pieces), _examples(pieces))
        for rule, pieces in expansion.refused.items()
    ]
    return [
        _table(("candidates", "number", "examples"), rows),
        "The rules are described in `tokenizer.expansion.rules.Rules` and "
        "`tokenizer.expansion.expand.Expansion`. A piece from several lists counts for each.",
    ]


def _longest(summary: GrowthSummary) -> list[str]:
    longest = sorted(summary.expansion.pieces, key=lambda new: (-len(new.piece), new.id))
    return [", ".join(_code(new.piece) for new in longest[:LONGEST])]


def _losses(summary: GrowthSummary) -> list[str]:
    if not summary.losses:
        return ["Not measured (loss_bytes=0)."]
    names = [c.name for c in summary.compressions]
    rows = [(init, *(f"{bits[n]:.4f}" for n in names)) for init, bits in summary.losses.items()]
    return [
        _table(("new rows", *names), rows),
        "All lines measure the same text; `no growth` is the base with its tokenizer.",
    ]


def _cost(summary: GrowthSummary) -> list[str]:
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
    return [_table(("quantity", "change"), rows)]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [[f"{v:,}" if isinstance(v, int) else v for v in row] for row in rows]
    return tabulate(cells, header, tablefmt="github", disable_numparse=True)


def _examples(pieces: Sequence[str]) -> str:
    """Examples at equal distances from the beginning to the end."""
    step = max(1, len(pieces) // EXAMPLES)
    return " ".join(_code(piece) for piece in pieces[::step][:EXAMPLES])


def _code(text: str) -> str:
    """Markdown code in a table cell; unprintable characters are escaped."""
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    shown = shown.replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def picture(summary: GrowthSummary) -> bytes:
    """PNG: ratio of tokens per corpus, and bits per byte before any training."""
    # Importing matplotlib takes half a second, so only this function imports it.
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
    inits = list(summary.losses)
    height = 0.8 / max(1, len(names))
    for number, name in enumerate(names if inits else ()):
        at = [place + number * height for place in range(len(inits))]
        bits = [summary.losses[init][name] for init in inits]
        right.barh(at, bits, height=height, label=name)
    if inits:
        right.set_yticks([place + 0.4 - height / 2 for place in range(len(inits))], inits)
        right.invert_yaxis()
        right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4)
    right.set(xlabel="bits per byte before any training" if inits else "not measured")
    stream = io.BytesIO()
    figure.savefig(stream, dpi=130)
    return stream.getvalue()
