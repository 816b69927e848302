"""Rules for candidate pieces: one rule per reason to refuse.

A new piece is merged wherever its characters meet, in any text. The rules protect text that must
not change: with `scripts=("Han",)` every new piece has a Chinese character, so text without one is
encoded as before.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizer.hf_export import SPACE

HAN = (
    *("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH"),
    *("IDEOGRAPHIC ITERATION MARK", "IDEOGRAPHIC NUMBER ZERO"),
)
SCRIPTS = (
    *("Arabic", "Armenian", "Bengali", "Cyrillic", "Devanagari", "Ethiopic", "Georgian", "Greek"),
    *("Gujarati", "Han", "Hangul", "Hebrew", "Hiragana", "Kannada", "Katakana", "Khmer", "Lao"),
    *("Latin", "Malayalam", "Mongolian", "Myanmar", "Sinhala", "Tamil", "Telugu", "Thai"),
    "Tibetan",
)


@dataclass
class Rules:
    """Form of a new piece, and its smallest frequency in the sample."""

    scripts: tuple[str, ...] | None = ("Han",)
    """Every letter is of one of these, and there is one; empty: any script, letters or not. null:
    to be taken from the texts, see `main_script`."""
    max_characters: int = 16
    """At most this long, a leading space not counted."""
    leading_space: bool = True
    """A piece may begin with a space, as words do. A space elsewhere is always refused."""
    digits: bool = False
    """A piece may contain decimal digits with other characters, against a base's `split_digits`."""
    punctuation: bool = False
    """A piece may contain punctuation, symbols and other characters that are not letters."""
    min_frequency: int = 2
    """Smallest number of occurrences, and of merges, in the sample."""

    def __post_init__(self) -> None:
        for script in self.scripts or ():
            if script not in SCRIPTS:
                raise ValueError(
                    f"rules.scripts={self.scripts}: {script!r} is none of {', '.join(SCRIPTS)}; "
                    "name some of these, or [] for any letters or none"
                )
        for name in ("max_characters", "min_frequency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a positive number")

    def refusal(self, piece: str) -> str | None:
        """The rule that a piece breaks by its looks: space, length, digits, ...; None if none."""
        assert self.scripts is not None
        word = piece.removeprefix(SPACE)
        if not word or SPACE in word or " " in word or (word != piece and not self.leading_space):
            return "space"
        if len(word) > self.max_characters:
            return "length"
        letters = [c for c in word if _is_letter(c)]
        others = [c for c in word if not _is_letter(c)]
        if not self.digits and len(word) > 1 and any(c.isdecimal() for c in others):
            return "digits"
        if not self.punctuation and not all(c.isdecimal() for c in others):
            return "punctuation"
        if self.scripts and not (letters and all(script_of(c) in self.scripts for c in letters)):
            return "script"
        return None


def script_of(letter: str) -> str:
    """The script of a letter, as Unicode names it: "Han", "Latin", ..."""
    name = unicodedata.name(letter, "")
    return "Han" if name.startswith(HAN) else name.partition(" ")[0].capitalize()


def main_script(texts: Iterable[str]) -> str:
    """The script of most letters of some texts; "none" if they have no letters."""
    counts = Counter(character for text in texts for character in text)
    scripts: Counter[str] = Counter()
    for character, n in counts.items():
        if _is_letter(character):
            scripts[script_of(character)] += n
    return max(scripts, key=lambda name: (scripts[name], name), default="") or "none"


def _is_letter(character: str) -> bool:
    """Letters, the marks on them, and letter-like numbers (〇 is one)."""
    return unicodedata.category(character)[0] in "LM" or unicodedata.category(character) == "Nl"
