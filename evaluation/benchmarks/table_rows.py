"""Items from rows of released files; rows that cannot be asked are tagged `broken`."""

from evaluation.benchmarks.items import LETTERS, Item


def letter_index(letter: str, options: int, place: str) -> int:
    """Index of the option that a letter names; ValueError if there is none."""
    letters = LETTERS[:options]
    if len(letter) != 1 or letter not in letters:
        raise ValueError(
            f"{place}: the answer is {letter[:40]!r}, but must be one of {letters}; correct it, or "
            "remove the row if it is a header"
        )
    return letters.index(letter)


def missing_texts(options: list[str], answer: int) -> str:
    """Reason that a question cannot be asked (options without text); empty: none."""
    empty = [LETTERS[n] for n, option in enumerate(options) if not option]
    if len(empty) == len(options):
        return "no option has a text"
    right = ", which is the right one" if LETTERS[answer] in empty else ""
    return f"no text in option {', '.join(empty)}{right}" if empty else ""


def row_item(id: str, subject: str, cells: list[str], place: str) -> Item:
    """Item from a row of question, options and letter of the right option.

    A row with an empty option is kept under the tag `broken`.

    Raises:
        ValueError: the letter does not name an option.
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
