"""The FLOPs behind MFU: those of the attention mask, counted one by one."""

import pytest
import torch

from model.documents import Documents
from tests.helpers.toy import mistral_7b_config, toy_config

# (row length, window, lengths of the documents of each row; what is missing is padding)
CASES = [
    (1, None, [[1]]),
    (1, 1, [[1]]),
    (7, None, [[7]]),
    (7, 1, [[7]]),
    (8, 8, [[8]]),
    (9, 8, [[9]]),
    (19, 8, [[19], [19]]),
    (19, 40, [[5, 14]]),
    (19, 4, [[5, 14], [1, 1, 17]]),
    (24, 6, [[24], [3, 9, 12], [5, 2]]),
    (24, None, [[6, 6, 6, 6], [1] * 24]),
    (33, 16, [[16, 17], [15], []]),
    (64, 63, [[64], [63, 1]]),
    (64, 5, [[], [40, 20]]),
]


def segments_of(length, rows):
    """Segment numbers of documents laid end to end, 0 behind them."""
    segments = torch.zeros(len(rows), length, dtype=torch.int32)
    for row, lengths in enumerate(rows):
        start = 0
        for number, n in enumerate(lengths, start=1):
            segments[row, start : start + n] = number
            start += n
    return segments


def pairs_one_by_one(segments, window):
    """(query, key) pairs: same document, no later key, at most window - 1 earlier."""
    return sum(
        row[i] == row[j] != 0 and j <= i and (window is None or i - j <= window - 1)
        for row in segments.tolist()
        for i in range(len(row))
        for j in range(len(row))
    )


@pytest.mark.parametrize(("length", "window", "rows"), CASES)
def test_flops_are_those_of_the_mask(length, window, rows):
    config = toy_config(sliding_window=window)
    segments = segments_of(length, rows)
    pairs = Documents.from_segments(segments).count_pairs(window)
    expected = pairs_one_by_one(segments, window)
    assert pairs == expected
    # Two products forward and four backward, each a multiplication and an addition.
    attention = 2 * 6 * config.num_hidden_layers * config.num_attention_heads * config.head_size
    tokens = segments.numel()
    products = config.training_flops(tokens, 0)
    assert config.training_flops(tokens, pairs) == products + attention * expected
    # The customary formula charges every token with every key of its row.
    whole = products + attention * tokens * length
    assert config.palm_flops(tokens, length) == whole
    assert whole >= config.training_flops(tokens, pairs)


def test_both_counts_at_full_size():
    """Mistral-7B at 8,192 tokens: 47.49 GFLOPs a token in the band, 55.55 by the customary sum."""
    config = mistral_7b_config()
    whole = Documents.whole_rows(1, 8192, torch.device("cpu")).count_pairs(4096)
    assert config.training_flops(8192, whole) / 8192 == pytest.approx(47.49e9, rel=1e-3)
    by_hand = 6 * 7.1104e9 + 12 * 32 * 4096 * 8192
    assert config.palm_flops(1, 8192) == pytest.approx(by_hand, rel=1e-4)
