"""Held-out side of documents, and the fold by which two texts count as the same text.

Two functions of a text serve two purposes, and the second follows from the first:

- `fold` says which texts are the same, so that one may be dropped for the other. What is dropped
  is lost, so `fold` keeps whatever may carry meaning: operators (`3 < 5`, `3 != 5`), signs and
  decimal points, brackets, code and LaTeX, emoji, vowel signs and tone marks (Unicode category M),
  and the case of words that one text writes in several ways (`berlin -> Berlin`). It ignores
  spaces, the punctuation of prose, width and all other case, in which copies differ.
- `side_hash` says on which side of the split a text falls, from its letters and digits alone. Texts
  on one side are not lost, so here coarse is safe: copies with other case, spaces, punctuation or
  operators fall on one side, in this source and in others, without any list being kept. A text
  without letters and digits has its fold instead, so that not all of those fall on one side.

Texts with equal folds have equal side hashes: no text is on both sides, however it was retyped.
"""

import hashlib
import re
import unicodedata
from collections import defaultdict

FOLD_VERSION = 2
"""Of what counts as the same text; 1 dropped all symbols, marks and case."""

_WIDE_MARKS = "，！？：；（）\u3000…～％．"
_ASCII_MARKS = bytes(code for code in range(128) if not chr(code).isalnum())

# Characters of NFKC texts. Other punctuation than these marks of prose is kept, like symbols.
_PROSE = (
    "-.,;:!?\"'\u2018-\u201f\u00ab\u00bb\u2039\u203a\u00a1\u00bf\u00b7\u2022\u2027\u3001-\u3003"
    "\u3008-\u3011\u3014-\u301f\u30fb\u0589\u05be\u05f3\u05f4\u060c\u061b\u061f\u06d4\u0964\u0965"
    "\u104a\u104b\u1362-\u1368\u17d4-\u17d6"
)
_IS_PROSE = re.compile(f"[{_PROSE}]")
_DASHES = re.compile("[\u2010-\u2015\u2212\u2e3a\u2e3b]")
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
                        "\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
                        "\U000e0000-\U000e0fff]")  # fmt: skip
_PROSE_RUN = re.compile(rf" ?[{_PROSE}][{_PROSE} ]*|(?<=\d) (?=\d)")
_SPACE = "\0"
"""A space that is kept, while the others are removed."""
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE_START = re.compile(r"(?:^|[.!?\u3002]['\"\u2019\u201d)\]]* )['\"\u2018\u201c(\[]*$")
_LOOK_BACK = 8
"""Characters before a word that can show that it begins a sentence."""
_OPENING = frozenset("([{")
_BRACKETS = frozenset("()[]{}\\$")
_COMPARED = frozenset("=<>")


def normalize(text: str) -> str:
    """A text without regard to case and to how its characters are composed: NFKC, casefold."""
    # NFKC decomposes and composes all characters of a text that is not normalized. In most Chinese
    # texts only these marks are not, and replacing them first takes a third of the time.
    for mark in _WIDE_MARKS:
        text = text.replace(mark, unicodedata.normalize("NFKC", mark))
    return unicodedata.normalize("NFKC", text).casefold()


def fold(text: str) -> str:
    """Fold of a text, equal for texts that count as the same text; see the head of this file."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    text = _fold_case(" ".join(_DASHES.sub("-", text).split()))
    kept = _PROSE_RUN.sub(_carried, text).replace(" ", "").replace(_SPACE, " ")
    return kept or text.replace(" ", "")


def fold_hash(text: str) -> int:
    """64 bits that are equal for texts with equal folds."""
    return _hash(fold(text))


def side_hash(normalized: str) -> int:
    """64 bits, uniform over texts, that decide which side of the split a text falls on.

    Args:
        normalized: the text by `normalize`.
    """
    return _hash(letters_and_digits(normalized) or fold(normalized))


def is_held_out(text: str, fraction: float) -> bool:
    """The side of the split that a document falls on, from its own text alone."""
    return side_hash(normalize(text)) < fraction * 2**64


def letters_and_digits(normalized: str) -> str:
    """The letters and digits of a text by `normalize`."""
    # Deleting the ASCII marks first makes it three times as fast as the pattern alone.
    few = normalized.encode().translate(None, delete=_ASCII_MARKS).decode()
    return "".join(re.findall(r"[^\W_]+", few))


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha1(key.encode(), usedforsecurity=False).digest()[:8])


def _fold_case(text: str) -> str:
    """Fold the case of every word that the text writes in one way only.

    A capital at the beginning of a sentence is not another way to write a word.
    """
    uncapitalized = {word for word in set(_WORD.findall(text)) if word == word.lower()}
    small = {word.casefold() for word in uncapitalized}
    ways = defaultdict[str, set[str]](set)
    capitals = []
    for word in _WORD.finditer(text):
        said, start = word[0], word.start()
        if said in uncapitalized:
            continue
        is_one = said[1:] == said[1:].lower()
        if is_one and _SENTENCE_START.search(text, max(0, start - _LOOK_BACK), start):
            small.add(said.casefold())
        else:
            ways[said.casefold()].add(said)
            capitals.append(word)
    parts, done = [], 0
    for word in capitals:
        key = word[0].casefold()
        if len(ways[key]) + (key in small) > 1:
            parts += [text[done : word.start()].casefold(), word[0]]
            done = word.end()
    return "".join([*parts, text[done:].casefold()])


def _carried(run: re.Match) -> str:
    """Part of a fold that comes from a run of spaces and punctuation of prose."""
    text, marks = run.string, run[0].replace(" ", "")
    start, stop = run.span()
    left, right = text[start - 1 : start] if start else "", text[stop : stop + 1]
    if left.isnumeric() and right.isnumeric():
        return marks or _SPACE  # 1.5, 10:30, 5 - 3; 1 5 is not 15
    if left in _OPENING and run[0][0] != " ":
        return marks  # a[:2], f(-x), ("a")
    behind = text[max(0, start - 2) : start][::-1]
    if marks == "-" and _is_operand(behind) and _is_operand(text[stop : stop + 2]):
        return marks  # x - 1, a-b
    return _of_left(left, run[0]) or _of_right(left, run[0], right)


def _is_operand(text: str) -> bool:
    """A number, a bracket or a single letter comes first in a text of two characters or fewer."""
    first, second = text[:1], text[1:]
    return first.isnumeric() or first in _BRACKETS or (first.isalpha() and not second.isalnum())


def _of_left(left: str, run: str) -> str:
    """A mark that belongs to the character before it: 5!, (n)!, <-."""
    is_factorial = run[0] == "!" and (left.isnumeric() or left == ")")
    is_arrow = run[0] == "-" and left == "<"
    return run[0] if is_factorial or is_arrow else ""


def _of_right(left: str, run: str, right: str) -> str:
    """A mark that belongs to the character after it: -196, .5, !=, :=, ->, !x, f'(x)."""
    mark, before = run[-1], (left + run)[-2:-1]
    if right.isnumeric() and mark in "-.":
        # The hyphen of COVID-19 is not a sign, and neither are two dashes or an ellipsis.
        is_sign = not _IS_PROSE.match(before) and before.lower() == before.upper()
        return mark if is_sign else ""
    if right in _COMPARED and mark in "!:-.":
        return mark
    if mark == "!" and (right.isalpha() or right == "("):
        return mark if not _IS_PROSE.match(before) and not before.isalnum() else ""
    return mark if mark in "'\"" and right in _BRACKETS else ""
