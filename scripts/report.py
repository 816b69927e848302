"""Compare runs: the arms and seeds of a study, or any runs.

python -m scripts.report runs=runs/study out=report [candidate=tspt control=one_stage]
python -m scripts.report runs='[runs/a,runs/b]' out=report
"""

from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from conf.command import command
from evaluation.report import ReportConfig, build_report, read_planned

ConfigStore.instance().store("report_schema", ReportConfig)


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
    if missing := OmegaConf.missing_keys(composed):
        raise ValueError(f"{', '.join(sorted(missing))}: must be given\n{__doc__}")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, ReportConfig)
    report(config)


if __name__ == "__main__":
    main()
