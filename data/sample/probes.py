"""Questions about every fact in both languages, worded as no training text is.

One question serves two probes: four options for a letter or likelihood choice, and a cloze whose
continuation is scored against nine wrong ones of the same type.
"""

from dataclasses import dataclass

from data.sample.dice import Dice
from data.sample.knowledge import Fact, facts, object_pool
from data.sample.prose import finish
from data.sample.wordings import wordings

LANGUAGES = ("en", "zh")
OPTIONS = 4
DISTRACTORS = 9


@dataclass(frozen=True)
class Question:
    """A probe of one fact.

    `options[answer]` is the object of the fact. `cloze` is a sentence start that the object
    completes, in English after a blank, in Chinese directly; `distractors` are nine objects of the
    same relation that would make it false, three of which are the other options. `exposures` is
    the number of documents per source that state the fact at scale 1.
    """

    prompt: str
    options: list[str]
    answer: int
    distractors: list[str]
    cloze: str
    language: str
    domain: str
    fact_id: str
    relation: str
    exposures: int
    invented: bool


def questions(*, seed: int = 0) -> list[Question]:
    """One question per fact and language; `seed` draws the distractors and places the answers.

    The four answer positions are equally frequent in each language and domain, to within one.
    """
    asked = []
    for language in LANGUAGES:
        for domain in ("general", "geo"):
            known = [fact for fact in facts() if fact.domain == domain]
            dice = Dice(seed, "answers", language, domain)
            positions = dice.shuffled([i % OPTIONS for i in range(len(known))])
            asked += [
                _question(fact, language, position, Dice(seed, "question", fact.id))
                for fact, position in zip(known, positions, strict=True)
            ]
    return asked


def _question(fact: Fact, language: str, position: int, dice: Dice) -> Question:
    pair = (fact.object_en, fact.object_zh)
    pool = [other for other in object_pool(fact.relation, fact.invented) if other != pair]
    wrong = [other[LANGUAGES.index(language)] for other in dice.shuffled(pool)[:DISTRACTORS]]
    subject, object_ = fact.surface(language)
    options = wrong[: OPTIONS - 1]
    options.insert(position, object_)
    wording = wordings(language)[fact.relation]
    return Question(
        prompt=finish(wording.prompt.replace("{s}", subject), language),
        options=options,
        answer=position,
        distractors=wrong,
        cloze=finish(wording.cloze.replace("{s}", subject), language),
        language=language,
        domain=fact.domain,
        fact_id=fact.id,
        relation=fact.relation,
        exposures=fact.exposures,
        invented=fact.invented,
    )
