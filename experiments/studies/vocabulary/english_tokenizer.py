"""A tokenizer of 4,096 pieces that knows English only, with which the studies start.

    python -m experiments.studies.vocabulary.english_tokenizer CORPUS OUT SHARE

CORPUS holds general_en.jsonl.zst. The training text excludes the documents that
`held_out_fraction=SHARE` holds out.
"""

import sys
from pathlib import Path

from data.prepare.held_out import is_held_out
from data.records.readers import Position, read_records, text_of
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe

if __name__ == "__main__":
    corpus, folder, share = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    records = read_records([f"{corpus}/general_en.jsonl.zst"], "text", "file", Position())
    texts = (text_of(record, "text") for record in records)
    folder.mkdir(parents=True)
    training = (text for text in texts if not is_held_out(text, share))
    (folder / "tokenizer.model").write_bytes(train_bpe(training, vocab_size=4096))
    Tokenizer.open(folder).save(folder)
