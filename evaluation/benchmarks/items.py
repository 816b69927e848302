"""Multiple-choice questions: the result of every reader and the input of every scoring."""

from dataclasses import dataclass, field

LETTERS = "ABCDEFGHIJ"
"""Letters of the options, in order."""


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique within its task, and stable between readings.
        subject: one of the task's `categories`.
        options: texts, in the order of `LETTERS`.
        answer: index of the right option.
        place: file and line (or row), for messages.
        cloze: start of a sentence that the right option completes; None: the question is completed.
        distractors: wrong completions of the cloze; empty: the other options.
        tags: further properties to report by (for instance `exposures`). `broken` is the reason
            that a question cannot be asked: such an item is never sent to a model and is scored
            incorrect, and its `answer` may exceed `options`.
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
        """Letters of the options."""
        return LETTERS[: len(self.options)]


@dataclass(frozen=True)
class Problem:
    """A faulty or doubtful row of a release.

    Attributes:
        place: file and line.
        reason: fault and consequence.
    """

    place: str
    reason: str


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: name in the registry.
        variant: `released` (every row that published figures count) or `cleaned`.
        language: of the questions, `en` or `zh`; the default of the prompt's language.
        items: questions, in the order of the files.
        demonstrations: solved questions of each subject, in the order of the files; empty where
            none were released.
        categories: category of each subject, in the order of reports.
        titles: name of each subject in prompts.
        problems: rows that were omitted, are scored incorrect (tag `broken`), or are doubtful.
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
