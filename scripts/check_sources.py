"""Does a source train on what another holds out? Compare prepared sources, and note the outcome.

    python -m scripts.check_sources tokenizer=path/to/tokenizer.model \\
        sources='[prepared/general_en,prepared/geo_en]'

Training refuses sources of which nothing tells that they are apart. Nothing is rewritten: the
outcome goes to apart.json beside each manifest, and what is known already is not compared again.
Exit code 1 if there are copies.
"""

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from data.prepare.check_overlap import CheckSourcesConfig, Pair, check_sources, preparation_of
from data.rows.shards import Source
from tokenizer.tokenizer import Tokenizer

ConfigStore.instance().store("check_sources_schema", CheckSourcesConfig)
SHOWN = 3


def main(composed: DictConfig) -> None:
    """Compare and tell."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, CheckSourcesConfig)
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
    # Not at the top: it imports torch, and every worker imports this module.
    from conf.command import command

    command("check_sources")(main)()
