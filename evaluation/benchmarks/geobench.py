"""GeoBench as JiuZhou scored it: two tables without a header row.

`geobench_npee`: questions of China's entrance examination for graduate studies, four options; the
last option is the word `Null` in questions with three options. The released variant keeps this
option, the cleaned variant omits it. `geobench_aptest`: AP study questions, five options.
"""

from pathlib import Path
from typing import NamedTuple

from evaluation.benchmarks.files import Reading, find, read_rows
from evaluation.benchmarks.items import Task
from evaluation.benchmarks.table_rows import row_item


class Table(NamedTuple):
    """A released table."""

    file: str
    subject: str
    options: int


TABLES = {
    "geobench_npee": Table("objective_task_npee.csv", "npee", 4),
    "geobench_aptest": Table("objective_task_apstudy.csv", "aptest", 5),
}

ORIGIN = "GeoBench/ of github.com/THU-ESIS/JiuZhou, folder evaluation"


def read_geobench(name: str, data: Path) -> Task:
    """Every row of one of `TABLES`; ValueError names the malformed file and line."""
    table = TABLES[name]
    path = find(name, data, "GeoBench", (table.file,), ORIGIN)
    reading = Reading(path.parent)
    rows = read_rows(reading, path, table.options + 2)
    return Task(
        name=name,
        variant="released",
        language="en",
        items=tuple(
            row_item(f"{table.subject}/{number}", table.subject, row.cells, row.place)
            for number, row in enumerate(rows, start=1)
        ),
        demonstrations={},
        categories={table.subject: "Geoscience"},
        titles={table.subject: "geoscience"},
        files=reading.digests,
    )
