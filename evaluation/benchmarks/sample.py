"""Questions about the facts of the embedded sample: tasks `sample_en` and `sample_zh`."""

from functools import cache
from pathlib import Path

from data.sample.probes import Question, questions
from evaluation.benchmarks.items import Item, Task

TITLES = {
    "en": {"general": "general knowledge", "geo": "geoscience"},
    "zh": {"general": "常识", "geo": "地球科学"},
}


def read_sample(name: str, data: Path) -> Task:
    """One question per fact, general ones first; subjects are the two domains.

    Tags of a question: `invented` (true, false), `exposures` (number of documents of each source
    that state the fact, 0 for controls), `domain`, `relation` and `fact_id`. Demonstrations are
    missing, because a solved question would reveal a fact that models are trained on.
    """
    del data  # the questions are generated
    language = name.removeprefix("sample_")
    return Task(
        name=name,
        variant="released",
        language=language,
        items=tuple(_item(q) for q in _questions() if q.language == language),
        demonstrations={},
        categories={"general": "General", "geo": "Geoscience"},
        titles=TITLES[language],
    )


@cache
def _questions() -> tuple[Question, ...]:
    """Questions in both languages; generating them takes most of the time."""
    return tuple(questions())


def _item(question: Question) -> Item:
    return Item(
        id=question.fact_id,
        subject=question.domain,
        question=question.prompt,
        options=tuple(question.options),
        answer=question.answer,
        place=f"embedded sample, {question.language}: {question.fact_id}",
        cloze=question.cloze,
        distractors=tuple(question.distractors),
        tags={
            "domain": question.domain,
            "exposures": str(question.exposures),
            "relation": question.relation,
            "invented": str(question.invented).lower(),
            "fact_id": question.fact_id,
        },
    )
