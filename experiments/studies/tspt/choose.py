"""Peak learning rates of docs/results/tspt.md: least mean of each arm on the development half.

    python -m experiments.studies.tspt.choose <folder of measured runs>

Prints, per arm and rate, domain and general bits per byte and their mean; the least is marked.
"""

import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

SIDES = {"domain": ("geo_en", "geo_zh"), "general": ("general_en", "general_zh", "arithmetic")}


def bits_per_byte(documents: list[tuple[float, int]]) -> float:
    """Total nats over total bytes, in bits."""
    return sum(nats for nats, _ in documents) / math.log(2) / sum(size for _, size in documents)


if __name__ == "__main__":
    found = defaultdict(dict)
    for path in sorted(Path(sys.argv[1]).glob("*/development.json")):
        about = json.loads((path.parent / "study.json").read_text())
        sets = {name: bits_per_byte(each) for name, each in json.loads(path.read_text()).items()}
        sides = [mean(sets[name] for name in names) for names in SIDES.values()]
        found[about["arm"]][about["lr"]] = sides
    for arm, by_rate in found.items():
        best = min(by_rate, key=lambda rate: mean(by_rate[rate]))
        for rate, sides in sorted(by_rate.items()):
            mark = " <-" if rate == best and len(by_rate) > 1 else ""
            domain, general = sides
            print(f"{arm:<16} {rate:7.1e} {domain:8.4f} {general:8.4f} {mean(sides):8.4f}{mark}")
