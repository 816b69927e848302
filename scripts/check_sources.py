"""Does a source train on what another holds out? Compare prepared sources, and note the outcome.

    python -m scripts.check_sources tokenizer=path/to/tokenizer.model \\
        sources='[prepared/general_en,prepared/geo_en]'

Training refuses sources of which nothing tells that they are apart. Nothing is rewritten: the
outcome goes to apart.json beside each manifest, and what is known already is not compared again.
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
    if tell(check_sources(config), config):
        raise SystemExit(1)


def tell(pairs: list[Pair], config: CheckSourcesConfig) -> bool:
    """Print every pair, its first copies, and the commands that mend it; whether there are any."""
    tokenizer = Tokenizer.open(config.tokenizer)
    for source, other, copies in pairs:
        assert copies is not None
        held_out = f"what {other.folder} holds out"
        print(f"{source.folder}: {len(copies):,} of {source.documents:,} documents copy {held_out}")
        for number in copies[:SHOWN]:
            text = tokenizer.decode(source.document(number)[1:-1].tolist())
            print(f"  document {number}: {text[:100]!r}")
        if copies[SHOWN:]:
            print(f"  and {len(copies) - SHOWN} more, in {source.folder}/apart.json")
    mixed = [Source(folder) for folder in config.sources]
    copying = {pair.source.folder: pair.source for pair in pairs if pair.copies}
    for source in copying.values():
        print("without them, in a new folder:")
        print(f"  {preparation_of(source, mixed, config.tokenizer)}")
    return bool(copying)


if __name__ == "__main__":
    main()
