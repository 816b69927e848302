"""An embedded bilingual corpus, generated in seconds: what a newcomer trains on, and a test bed.

    documents(source, seed=, scale=)   the texts of one of SOURCES: general_en, general_zh,
                                       arithmetic, geo_en, geo_zh
    facts()                            what the texts state: real facts, and invented ones that no
                                       model can know beforehand, at 0, 1, 4, 16 or 64 exposures
    exposures(source, scale=)          in how many documents each fact is stated, exactly
    questions(seed=)                   multiple choice and cloze, worded as no text is

The same arguments give the same bytes on every platform and Python version. Geoscience sources
state nothing that general ones state, and the other way round.
"""

from data.sample.corpus import SOURCES, documents, exposures
from data.sample.knowledge import Fact, facts
from data.sample.probes import Question, questions

__all__ = ["SOURCES", "Fact", "Question", "documents", "exposures", "facts", "questions"]
