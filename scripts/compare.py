"""Compare two models that answered the same questions: McNemar's test and a paired interval.

python -m scripts.compare a=<out of scripts.evaluate> b=<another> [out=comparison.json]
"""

from pathlib import Path

from conf.command import command
from evaluation.multiple_choice.compare import (
    CompareConfig,
    compare_folders,
    comparison_table,
    write_comparison,
)


@command("compare", CompareConfig)
def main(config: CompareConfig) -> None:
    """Read both folders and print the table."""
    comparisons = compare_folders(config)
    print(comparison_table(comparisons))
    if config.out is not None:
        write_comparison(Path(config.out), comparisons)


if __name__ == "__main__":
    main()
