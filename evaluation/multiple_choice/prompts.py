"""Prompts: questions as the text that a model reads.

With letters, a prompt is a headline that names the subject, solved questions, and the question with
its options, in the usual words of MMLU (Hendrycks et al. 2021), C-Eval and CMMLU. In a cloze the
options are not shown: solved questions are completed sentences, and each option completes the last
sentence.
"""

import random
from dataclasses import dataclass

from evaluation.benchmarks.items import LETTERS, Item, Task
from evaluation.multiple_choice.config import AskConfig

BROKEN = "broken"
"""Tag of a question that is not asked and is scored incorrect."""


@dataclass(frozen=True)
class Wording:
    """Words of one language around a question.

    Attributes:
        headline: with two spaces before the subject, like MMLU's code.
        lead: text before an answer.
        blank: space between an answer and the lead, or the start of a sentence.
    """

    headline: str
    lead: str
    blank: str


WORDINGS = {
    "en": Wording(
        "The following are multiple choice questions (with answers) about  {title}.\n\n",
        "Answer:",
        " ",
    ),
    "zh": Wording(
        "以下是中国关于{title}考试的单项选择题，请选出其中的正确答案。\n\n",
        "答案：",
        "",
    ),
}


@dataclass(frozen=True)
class Prompt:
    """One question as text; `shared + body + blank + choices[i]` is the text with answer i.

    Attributes:
        shared: headline and solved questions, equal for all questions of a subject.
        body: the question, without white space at its end.
        blank: empty, or the space before an answer.
        choices: answers: letters, or texts.
        answer: index of the right choice.
        place: of the question, for messages.
    """

    shared: str
    body: str
    blank: str
    choices: tuple[str, ...]
    answer: int
    place: str

    @property
    def context(self) -> str:
        """Text before the answer."""
        return self.shared + self.body

    @property
    def endings(self) -> tuple[str, ...]:
        """Texts that may follow the context."""
        return tuple(self.blank + choice for choice in self.choices)


def write_prompts(task: Task, config: AskConfig) -> list[Prompt | None]:
    """Prompt of each question of a task, in order; None for broken questions.

    Raises:
        ValueError: a subject has too few solved questions, or a question cannot be asked with this
            configuration.
    """
    shots = config.shots_for(task.name)
    demonstrations = {
        subject: choose_demonstrations(task, subject, shots, config.demonstration_seed)
        for subject in dict.fromkeys(item.subject for item in task.items)
    }
    write = _cloze_prompt if config.scoring == "cloze" else _letter_prompt
    return [
        None if BROKEN in item.tags else write(task, item, demonstrations[item.subject], config)
        for item in task.items
    ]


def choose_demonstrations(task: Task, subject: str, shots: int, seed: int | None) -> list[Item]:
    """Solved questions of a subject without the broken ones: the first, or a random choice.

    Raises:
        ValueError: the subject has too few.
    """
    known = [item for item in task.demonstrations.get(subject, ()) if BROKEN not in item.tags]
    if shots > len(known):
        raise ValueError(
            f"shots={shots}: {task.name} has {len(known)} solved questions of {subject}; reduce "
            f"shots, or set shots_per_task={{{task.name}: {len(known)}}} for this task"
        )
    if seed is None:
        return known[:shots]
    return random.Random(f"{seed} {task.name} {subject}").sample(known, shots)


def _letter_prompt(task: Task, item: Item, solved: list[Item], config: AskConfig) -> Prompt:
    language = task.language if config.prompt_language == "auto" else config.prompt_language
    wording = WORDINGS[language]
    shared = wording.headline.format(title=task.titles[item.subject])
    for other in solved:
        answer = other.letters[other.answer]
        shared += _with_options(other, wording) + wording.blank + answer + "\n\n"
    body, letters = _with_options(item, wording), tuple(item.letters)
    return Prompt(shared, body, wording.blank, letters, item.answer, item.place)


def _with_options(item: Item, wording: Wording) -> str:
    options = zip(item.letters, item.options, strict=True)
    lines = [item.question, *(f"{letter}. {option}" for letter, option in options), wording.lead]
    return "\n".join(lines)


def _cloze_prompt(task: Task, item: Item, solved: list[Item], config: AskConfig) -> Prompt:
    del config  # a cloze has no words around the question
    blank = WORDINGS[task.language].blank
    shared = "".join(
        _sentence_start(other) + blank + other.options[other.answer] + "\n\n" for other in solved
    )
    choices, answer, start = item.options, item.answer, _sentence_start(item)
    if item.distractors:
        choices, answer = (item.options[item.answer], *item.distractors), 0
    for letter, choice in zip(LETTERS, choices, strict=False):
        if not choice.strip():
            raise ValueError(
                f"{item.place}: option {letter} is empty, so scoring=cloze cannot compare it; "
                "choose scoring=letters or variant=cleaned"
            )
    return Prompt(shared, start, blank if start else "", choices, answer, item.place)


def _sentence_start(item: Item) -> str:
    """Start of the sentence; empty where options were released without a question."""
    return (item.question if item.cloze is None else item.cloze).rstrip()
