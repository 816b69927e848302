"""Compare runs: the arms and seeds of a study, or any runs.

python -m scripts.report runs=runs/study out=report [candidate=tspt control=one_stage]
python -m scripts.report runs='[runs/a,runs/b]' out=report
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from conf.command import command, register_schema
from evaluation.study.report import ReportConfig, build_report, read_planned

register_schema("report_schema", ReportConfig, free_keys=("arm_seeds", "grown_from"))


def report(config: ReportConfig) -> None:
    """Read, compute, write, and say what is missing."""
    study = read_planned(config)
    build_report(config, study).write(Path(config.out))
    for arm, seed in study.missing:
        print(f"missing: {arm}, seed {seed}")
    for name, reason in study.excluded.items():
        print(f"not counted: {name}, {reason}")
    print(f"{config.out}/report.html: {len(study.runs)} runs of {len(study.arms)} arms")


@command("report")
def main(composed: DictConfig) -> None:
    """Compose, then report."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, ReportConfig)
    report(config)


if __name__ == "__main__":
    main()
