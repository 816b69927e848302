"""Grow the vocabulary of a model for a new language or field (S0).

    python -m scripts.expand_tokenizer base=Mistral-7B-v0.1 root=corpus \\
        corpus='[general_zh, geo_zh, geo_en]' target_vocab_size=63872 init=mean_subtoken out=grown

`out` is an HF folder to train on: prepare the corpora with its tokenizer, then start stage 1 with
`model=pretrained init_from=<out> data.tokenizer=<out>`. It holds report.md and report.png too.
"""

from conf.command import command
from tools.vocabulary.grow import grow
from tools.vocabulary.inputs import GrowConfig
from tools.vocabulary.report import GrowthSummary


@command("expand_tokenizer", GrowConfig)
def main(config: GrowConfig) -> None:
    summarize(grow(config), config.out)


def summarize(summary: GrowthSummary, out: str) -> None:
    """Print what was gained and where it lies."""
    base, grown = summary.growth.base.vocab_size, summary.growth.grown.vocab_size
    print(f"{out}: {base:,} -> {grown:,} pieces, {summary.cost.rows:,} rows")
    for c in summary.compressions:
        changed = c.documents - c.documents_unchanged
        print(
            f"  {c.name:<20}{c.after / c.before:.3f} of the tokens; {changed:,} of {c.documents:,} "
            f"documents changed ({c.kind})"
        )
    print(f"{out}/report.md has the rest")


if __name__ == "__main__":
    main()
