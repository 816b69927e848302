"""Let a language model judge answers to open questions: GeoBench's subjective task.

    python -m scripts.generate folder=<model> questions=subjective_task.xlsx out=a.jsonl \\
        max_new_tokens=1024
    python -m scripts.judge questions=subjective_task.xlsx answers='{a: a.jsonl, b: b.jsonl}' \\
        endpoint=http://127.0.0.1:8000/v1 judge=<model there> out=<folder> [mode=pairwise]

Six criteria, as scores or, with mode=pairwise, as preferences asked for in both orders. The same
command goes on where it was interrupted, and asks again for what failed. See docs/howto/judge.md.
"""

from omegaconf import DictConfig, OmegaConf

from conf.command import command, register_schema
from evaluation.judge.config import JudgeConfig
from evaluation.judge.run import judge_answers
from evaluation.judge.summary import judge_table

register_schema("judge_schema", JudgeConfig, free_keys=("answers", "body"))


@command("judge")
def main(composed: DictConfig) -> None:
    """Judge, print the table, and exit with 1 if a verdict is missing."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, JudgeConfig)
    try:
        summary = judge_answers(config)
    except KeyboardInterrupt:
        stopped = f"stopped; the same command goes on in {config.out}"
        raise KeyboardInterrupt(stopped) from None
    print(judge_table(summary))
    print(f"{config.out}: transcript.jsonl, summary.json")
    if failed := len(summary["failed"]):
        raise SystemExit(f"{failed} verdicts are missing; the same command asks for them again")


if __name__ == "__main__":
    main()
