"""The texts and tables that the sample is generated from, in `data/sample/text/`.

facts_*.txt                                       notation in data/sample/knowledge.py
lexicon_* scenes_* narratives_* references_*.txt  rules (data/sample/grammar.py); {p}, {he}, ...
                                                  are bound by data/sample/prose.py
topics_geo_*.txt                                  rules per topic, each topic after `# topic`
wordings_*.txt                                    notation in data/sample/wordings.py
kinds.yaml, translations.yaml                     kinds of documents, frequent Chinese forms
"""

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "text"


def read_texts(*names: str) -> str:
    """The contents of `<name>.txt` of each name, end to end."""
    return "".join((FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in names)


def read_topic(name: str, topic: str) -> str:
    """The part of `<name>.txt` after the line `# <topic>`, up to the next such line."""
    _, _, rest = ("\n" + read_texts(name)).partition(f"\n# {topic}\n")
    return rest.partition("\n# ")[0] + "\n"


def read_table(name: str) -> dict[str, Any]:
    """The content of `<name>.yaml`."""
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
