"""Multiple-choice questions as every reader gives them and every scorer takes them."""

from dataclasses import dataclass, field

LETTERS = "ABCDEFGHIJ"
"""Names of the options, in order."""


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique within its task and the same whenever it is read.
        subject: of the task's `categories`.
        options: texts, the first of which is A.
        answer: the place of the right one.
        place: file and line (or row) it was read from, for reports.
        cloze: a sentence start that the right option completes; None: there is none, and the
            question itself is completed.
        distractors: wrong completions of the cloze; empty: the other options.
        tags: what else is known of it, to report by (for instance how often a fact was shown).
            `broken`, where it is there, says why the question cannot be asked: such an item is
            never sent to a model and counts as wrong, and its `answer` may lie beyond `options`.
    """

    id: str
    subject: str
    question: str
    options: tuple[str, ...]
    answer: int
    place: str
    cloze: str | None = None
    distractors: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def letters(self) -> str:
        """The letters that the options go by."""
        return LETTERS[: len(self.options)]


@dataclass(frozen=True)
class Problem:
    """A row that cannot be asked as it was released, or that no answer may do justice to.

    Attributes:
        place: file and line.
        reason: what is wrong with it.
    """

    place: str
    reason: str


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: what it is asked for by; `variant` belongs to it.
        variant: `released` (every row that was counted in published figures) or `cleaned`.
        language: of the questions, `en` or `zh`; prompts follow it unless told otherwise.
        items: the questions, in the order of the files.
        demonstrations: solved questions of each subject, in the order of the files, to precede the
            others; empty where none were released.
        categories: of each subject, in the order of reports.
        titles: how a prompt names each subject.
        problems: rows that were left out, that count as wrong whatever is answered (those tagged
            `broken`), or that are asked although doubtful; the reason says which.
        files: sha256 of each file that was read, by name.
    """

    name: str
    variant: str
    language: str
    items: tuple[Item, ...]
    demonstrations: dict[str, tuple[Item, ...]]
    categories: dict[str, str]
    titles: dict[str, str]
    problems: tuple[Problem, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
