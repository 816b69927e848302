"""Summary of a source of conversations: counts, rejected records, samples."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from data.prepare.conversations import PrepareConversationsConfig, main_reasons
from data.records.record_files import EMPTY_LINE
from data.rows.conversations import Conversations
from tokenizer.chat import Encoded, transcript
from tokenizer.tokenizer import Tokenizer

SHOWN_CHARACTERS = 600
PLACES_PER_REASON = 3
REASONS = 30
KEYS = 20


def summarize_conversations(manifest: dict, config: PrepareConversationsConfig) -> None:
    """Print counts, rejected records with places, and conversations as training reads them."""
    tokens, supervised = manifest["tokens"], manifest["supervised_tokens"]
    rejected, held_out = manifest["rejected"], manifest["held_out"]
    rows = {
        "conversations": f"{manifest['conversations']:,}",
        "tokens": f"{tokens:,}, BOS and EOS included",
        "supervised": f"{supervised:,} tokens, {supervised / tokens:.1%}",
        "held out": f"{held_out['conversations']:,} conversations",
        f"cut off at max_tokens={config.max_tokens}": f"{manifest['truncated']:,}",
        "rejected": f"{sum(rejected.values()):,}",
    }
    print(config.out)
    for label, value in rows.items():
        print(f"  {label:<52}{value}")
    skipped = _skipped(Path(config.out))
    for reason, places in list(skipped.places.items())[:REASONS]:
        print(f"    {reason + ' ':<50}{rejected[reason]:,} ({', '.join(places)})")
    if more := list(skipped.places)[REASONS:]:
        label = f"{len(more)} more reasons"
        print(f"    {label:<50}{sum(rejected[reason] for reason in more):,}")
    if rejected:
        print(f"  {config.out}/skipped.jsonl lists the rejected records, by file and line")
    for what, count in manifest["left_off"].items():
        print(f"  {what:<60}  {count:,}")
    if passed_over := Counter(manifest["passed_over"]).most_common():
        shown = ", ".join(f"{key} {count:,}" for key, count in passed_over[:KEYS])
        more = f", and {len(passed_over) - KEYS} more keys" if passed_over[KEYS:] else ""
        print(f"  passed over: {shown}{more}")
    if held_out["fraction"] and not held_out["conversations"]:
        print(
            f"warning: no conversation was held out, because the source is small for "
            f"held_out_fraction={held_out['fraction']}; raise held_out_fraction to measure the "
            "loss on this source"
        )
    _show(Conversations(config.out), Tokenizer.open(config.tokenizer), config.show)
    _warn_of_files(manifest, skipped.reasons)


def _warn_of_files(manifest: dict, reasons: dict[str, Counter[str]]) -> None:
    """Name the files most of whose records were rejected, with the reasons."""
    for entry in manifest["inputs"]:
        rejected = reasons.get(entry["path"], Counter())
        records = entry["records"] - rejected.pop(EMPTY_LINE, 0)
        if 2 * rejected.total() > records:
            print(
                f"warning: {rejected.total():,} of {records:,} records of {entry['path']} were "
                f"rejected: {main_reasons(rejected)}"
            )


class _Skipped(NamedTuple):
    """Records of skipped.jsonl."""

    places: dict[str, list[str]]
    """First places of each reason; reasons in order of occurrence."""
    reasons: dict[str, Counter[str]]
    """Number of rejected records by file and reason."""


def _skipped(folder: Path) -> _Skipped:
    found: dict[str, list[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    with (folder / "skipped.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            place = json.loads(line)
            reasons.setdefault(place["file"], Counter())[place["reason"]] += 1
            places = found.setdefault(place["reason"], [])
            if len(places) < PLACES_PER_REASON:
                places.append(f"{Path(place['file']).name}:{place['line']}")
            elif len(places) == PLACES_PER_REASON:
                places.append("...")
    return _Skipped(found, reasons)


def _show(source: Conversations, tokenizer: Tokenizer, count: int) -> None:
    """Print the first conversations, supervised text in green or between marks."""
    is_terminal = sys.stdout.isatty()
    opening, closing = ("\033[32m", "\033[0m") if is_terminal else ("«", "»")
    shown = range(min(count, source.documents))
    if shown:
        print(f"supervised text is {'green' if is_terminal else 'between « and »'}:")
    for number in shown:
        ids = source.document(number).tolist()
        encoded = Encoded(ids, source.supervised(number).tolist())
        text = transcript(tokenizer, encoded, opening, closing)
        if len(text) > SHOWN_CHARACTERS:
            text = f"{text[:SHOWN_CHARACTERS]}...{closing if is_terminal else ''}"
        print(f"\nconversation {number}, {len(ids)} tokens:\n{text}")
