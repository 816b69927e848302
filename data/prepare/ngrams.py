"""Texts -> hashes of their 13-grams, to find near copies.

A unit is a word, that is a run of letters and digits, or, in scripts written without spaces
between words (Han, kana, bopomofo, Thai, Lao, Khmer, Myanmar, the Tai scripts, Javanese,
Balinese, Tangut, Khitan, Nushu), a single letter or digit. Texts are compared after NFKC and case
folding; combining marks and invisible format characters neither count nor end a word, everything
else (spaces, punctuation, symbols) separates. So texts that are equal by
`data.prepare.held_out.fold` have equal grams, unless a space or a hyphen was put inside a word.
"""

import functools
import unicodedata

import numpy as np
from jaxtyping import UInt64

from data.rows.seeds import splitmix64

NGRAM_UNITS = 13
"""Units of a gram, as in GPT-3's test of contamination (Brown et al. 2020, appendix C)."""

_SEPARATOR, _IN_WORD, _ALONE, _IGNORED = range(4)
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19FF), (0x1A20, 0x1AAF),
    (0x1B00, 0x1B7F), (0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x312F), (0x31A0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA980, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF),
    (0x16FE0, 0x18DFF), (0x1AFF0, 0x1B2FF), (0x20000, 0x3FFFF),
)  # fmt: skip
"""Blocks of the scripts without spaces, first and last code point."""
_BASE = 0xD1342543DE82EF95
"""Of the polynomials modulo 2**64; odd, so that its powers never vanish."""


def ngram_hashes(normalized: str) -> UInt64[np.ndarray, " grams"]:
    """The distinct 13-grams of a text as 64-bit hashes, sorted; none if it has fewer units.

    Args:
        normalized: by `data.prepare.held_out.normalize`.
    """
    units = _unit_hashes(normalized)
    count = len(units) - NGRAM_UNITS + 1
    if count < 1:
        return np.empty(0, np.uint64)
    grams = units[:count].copy()
    for place in range(1, NGRAM_UNITS):
        grams *= np.uint64(_BASE)
        grams += units[place : place + count]
    grams.sort()
    first = np.ones(count, bool)
    np.not_equal(grams[1:], grams[:-1], out=first[1:])
    return grams[first]  # np.unique takes eight times as long


def _unit_hashes(normalized: str) -> UInt64[np.ndarray, " units"]:
    """The units of a text in order, each as the mixed value of a polynomial of its letters."""
    codes = np.frombuffer(normalized.encode("utf-32-le"), np.uint32)
    kinds, values = _code_points()
    kind = kinds.take(codes)
    ignored = kind == _IGNORED
    if ignored.any():
        codes, kind = codes[~ignored], kind[~ignored]
    in_word = kind == _IN_WORD
    begins = in_word.copy()
    begins[1:] &= ~in_word[:-1]
    begins |= kind == _ALONE
    starts = np.flatnonzero(begins)
    if not len(starts):
        return np.empty(0, np.uint64)
    # Separators after a unit have the value 0, so a unit may be taken to end where the next begins.
    lengths = np.diff(starts, append=len(codes))
    places = np.arange(starts[0], len(codes)) - np.repeat(starts, lengths)
    powers = _powers(1 << max(10, int(lengths.max()).bit_length()))
    terms = values.take(codes[starts[0] :]) * powers.take(places)
    return _mixed(np.add.reduceat(terms, starts - starts[0]))


@functools.lru_cache(maxsize=2)
def _powers(count: int) -> UInt64[np.ndarray, " count"]:
    """`_BASE` to the powers 0 .. count - 1, modulo 2**64."""
    factors = np.full(count, _BASE, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _mixed(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """A bijection that spreads similar values over all 64 bits (SplitMix64's)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@functools.cache
def _code_points() -> tuple[np.ndarray, np.ndarray]:
    """Kind of each code point, and its 64-bit value within a unit (0: not in a unit)."""
    kinds = np.full(0x110000, _SEPARATOR, np.uint8)
    # The planes in between are unassigned or private: none of theirs is a letter, digit or mark.
    for code in (*range(0x40000), *range(0xE0000, 0xE1000)):
        letter = chr(code)
        if letter.isalnum():
            kinds[code] = _IN_WORD
        elif unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf"):
            kinds[code] = _IGNORED
    for first, last in _UNSPACED:
        block = kinds[first : last + 1]
        block[block == _IN_WORD] = _ALONE
    counted = (kinds == _IN_WORD) | (kinds == _ALONE)
    return kinds, splitmix64(0, len(kinds)) * counted
