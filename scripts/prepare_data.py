"""Turn documents, or conversations, into a prepared source.

    python -m scripts.prepare_data name=geo_en inputs='[corpus/geo_en.jsonl.zst]' \\
        tokenizer=path/to/tokenizer.model out=prepared/geo_en
    python -m scripts.prepare_data kind=conversations name=alpaca inputs='[sft/alpaca.json]' \\
        tokenizer=path/to/tokenizer.model out=prepared/alpaca max_tokens=2048

Documents: run again, the same command continues what was cut off. With `append=true` and other
inputs, the source that `out` is grows by them.
"""

from conf.command import command, to_continue
from data.prepare.conversations import (
    PrepareConversationsConfig,
    compare_on_messages,
    prepare_conversations,
)
from data.prepare.documents import PrepareConfig, compare_on_documents, prepare
from data.prepare.summary import summarize_conversations
from data.rows.shards import Source
from tokenizer.tokenizer import Tokenizer


@command(
    "prepare_data",
    {"documents": PrepareConfig, "conversations": PrepareConversationsConfig},
    stopped=to_continue,
)
def main(config: PrepareConfig | PrepareConversationsConfig) -> None:
    """Prepare one source and print its summary."""
    if isinstance(config, PrepareConversationsConfig):
        say(compare_on_messages(config))
        summarize_conversations(prepare_conversations(config), config)
    else:
        say(compare_on_documents(config))
        summarize(prepare(config), config)


def say(line: str | None) -> None:
    """Print a line, if there is one."""
    if line is not None:
        print(line, flush=True)


def summarize(manifest: dict, config: PrepareConfig) -> None:
    """Print what was made, what was left out, and the first document as training will see it."""
    held_out, skipped = manifest["held_out"], manifest["skipped"]
    rows = {
        "documents": f"{manifest['documents']:,}",
        "tokens": f"{manifest['tokens']:,}, BOS and EOS included",
        "bytes per token": f"{manifest['utf8_bytes'] / manifest['tokens']:.3f}",
        "held out": f"{held_out['documents']:,} documents, {held_out['utf8_bytes']:,} bytes",
        "skipped": f"{sum(skipped.values()):,}",
    }
    rows |= {f"  {reason}": f"{count:,}" for reason, count in skipped.items()}
    print(config.out)
    for label, value in rows.items():
        print(f"  {label:<52}{value}")
    if skipped:
        print(f"  {config.out}/skipped.jsonl lists what was skipped, by file and line")
    if held_out["fraction"] and not held_out["documents"]:
        print(
            "warning: no document was held out, because the source is small for "
            f"held_out_fraction={held_out['fraction']}; raise held_out_fraction to measure "
            "the loss on this source"
        )
    tokenizer = Tokenizer.open(config.tokenizer)
    ids = Source(config.out).document(0).tolist()
    text = tokenizer.decode(ids[1:-1])
    shown = text if len(text) <= 300 else f"{text[:300]}..."
    print(f"first document, {len(ids)} tokens:\n[BOS {ids[0]}]{shown}[EOS {ids[-1]}]")


if __name__ == "__main__":
    main()
