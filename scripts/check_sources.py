"""Compare the training documents of prepared sources with the held-out documents of the others.

    python -m scripts.check_sources tokenizer=path/to/tokenizer.model \\
        sources='[prepared/general_en,prepared/geo_en]'

Training refuses sources that have not been compared. No source is rewritten: the result goes to
overlap.json next to each manifest, and a pair that has a result is not compared again.
Exit code 1 if there are copies.
"""

from conf.command import command
from data.prepare.check_overlap import CheckSourcesConfig, Pair, check_sources, preparation_of
from data.rows.shards import Source
from tokenizer.tokenizer import Tokenizer

SHOWN = 3


@command("check_sources", CheckSourcesConfig)
def main(config: CheckSourcesConfig) -> None:
    """Compare the sources; exit with 1 if a source trains on held-out text of another."""
    if report(check_sources(config), config):
        raise SystemExit(1)


def report(pairs: list[Pair], config: CheckSourcesConfig) -> bool:
    """Print every pair, its first copies, and the remedy; returns True if there are copies."""
    tokenizer = Tokenizer.open(config.tokenizer)
    for source, other, copies in pairs:
        assert copies is not None
        held_out = f"held-out documents of {other.folder}"
        print(f"{source.folder}: {len(copies):,} of {source.documents:,} documents copy {held_out}")
        for number in copies[:SHOWN]:
            text = tokenizer.decode(source.document(number)[1:-1].tolist())
            print(f"  document {number}: {text[:100]!r}")
        if copies[SHOWN:]:
            print(f"  and {len(copies) - SHOWN} more, in {source.folder}/overlap.json")
    mixed = [Source(folder) for folder in config.sources]
    copying = {pair.source.folder: pair.source for pair in pairs if pair.copies}
    for source in copying.values():
        print("to prepare it without the copies, in a new folder:")
        print(f"  {preparation_of(source, mixed, config.tokenizer)}")
    return bool(copying)


if __name__ == "__main__":
    main()
