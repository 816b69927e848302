"""Randomness as a pure function of names: nothing to seed, nothing to save.

`derive` turns a run's seed and a path of names into the seed of one decision, `permutation` turns
a seed into an order. Both are defined by arithmetic alone, so that a run can be repeated under
another numpy (whose own generators may change their streams between versions) or platform.
"""

import hashlib
import json

import numpy as np
from jaxtyping import Int64, UInt64


def derive(seed: int, *names: str | int) -> int:
    """The 64-bit seed of the decision that `names` lead to; `1` and `"1"` are different names."""
    digest = hashlib.blake2b(json.dumps([seed, *names]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def splitmix64(seed: int, count: int) -> UInt64[np.ndarray, " count"]:
    """The first `count` outputs of SplitMix64 (Steele, Lea and Flood 2014), all different."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state += np.uint64(seed)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def permutation(count: int, seed: int) -> Int64[np.ndarray, " count"]:
    """A seeded order of 0 .. count - 1."""
    # No two keys are equal, so the order does not depend on the sorting algorithm.
    return np.argsort(splitmix64(seed, count)).astype(np.int64, copy=False)
