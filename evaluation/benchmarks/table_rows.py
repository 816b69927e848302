"""Rows of released files -> items, with a judgement whether they can be asked."""

from evaluation.benchmarks.items import LETTERS, Item


def letter_index(letter: str, options: int, place: str) -> int:
    """Which option a letter names; ValueError if it names none of so many."""
    letters = LETTERS[:options]
    if len(letter) != 1 or letter not in letters:
        raise ValueError(
            f"{place}: the answer is {letter[:40]!r}, none of {letters}; correct it, or remove the "
            "row if it is a header"
        )
    return letters.index(letter)


def missing_texts(options: list[str], answer: int) -> str:
    """Why a question cannot be asked: which options have no text; empty if all have one."""
    empty = [LETTERS[n] for n, option in enumerate(options) if not option]
    if len(empty) == len(options):
        return "no option has a text"
    right = ", which is the right one" if LETTERS[answer] in empty else ""
    return f"no text in option {', '.join(empty)}{right}" if empty else ""


def row_item(id: str, subject: str, cells: list[str], place: str) -> Item:
    """An item of a row of question, options, and letter of the right one.

    A row with an empty option is kept under the tag `broken`.

    Raises:
        ValueError: the letter names no column of options.
    """
    question, *options, letter = cells
    answer = letter_index(letter, len(options), place)
    broken = missing_texts(options, answer)
    return Item(
        id=id,
        subject=subject,
        question=question,
        options=tuple(options),
        answer=answer,
        place=place,
        tags={"broken": broken} if broken else {},
    )
