"""sentencepiece text <-> ids, and the tokenizer files that the HF ecosystem reads."""
