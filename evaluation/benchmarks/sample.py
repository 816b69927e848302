"""The questions about the facts of the embedded sample, as tasks `sample_en` and `sample_zh`."""

from functools import cache

from data.sample.probes import Question, questions
from evaluation.benchmarks.items import Item, Task

TITLES = {
    "en": {"general": "general knowledge", "geo": "geoscience"},
    "zh": {"general": "常识", "geo": "地球科学"},
}


def read_sample(language: str) -> Task:
    """One question per fact, general ones first; subjects are the two domains.

    The tags say whether a fact is `invented` (true, false), in how many documents of each source it
    is stated (`exposures`, 0 for controls), its `domain`, `relation` and `fact_id`. There are no
    demonstrations: every question asks for a fact that some model is trained on, so that a solved
    one would tell it.
    """
    return Task(
        name=f"sample_{language}",
        variant="released",
        language=language,
        items=tuple(_item(q) for q in _questions() if q.language == language),
        demonstrations={},
        categories={"general": "General", "geo": "Geoscience"},
        titles=TITLES[language],
    )


@cache
def _questions() -> tuple[Question, ...]:
    """Of both languages: drawing them takes longer than all the rest."""
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
