"""Compare runs: the arms and seeds of a study, or any runs.

python -m scripts.report runs=runs/study out=report [candidate=tspt control=one_stage]
python -m scripts.report runs='[runs/a,runs/b]' out=report
"""

from pathlib import Path

from conf.command import command
from evaluation.study.report import ReportConfig, build_report, read_planned


def report(config: ReportConfig) -> None:
    """Read, compute, write, and say what is missing."""
    study = read_planned(config)
    build_report(config, study).write(Path(config.out))
    for arm, seed in study.missing:
        print(f"missing: {arm}, seed {seed}")
    for name, reason in study.excluded.items():
        print(f"not counted: {name}, {reason}")
    print(f"{config.out}/report.html: {len(study.runs)} runs of {len(study.arms)} arms")


@command("report", ReportConfig)
def main(config: ReportConfig) -> None:
    """Compose, then report."""
    report(config)


if __name__ == "__main__":
    main()
