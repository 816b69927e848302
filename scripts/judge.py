"""Let a language model judge answers to open questions: GeoBench's subjective task.

    python -m scripts.generate folder=<model> questions=subjective_task.xlsx out=a.jsonl \\
        max_new_tokens=1024
    python -m scripts.judge questions=subjective_task.xlsx answers='{a: a.jsonl, b: b.jsonl}' \\
        endpoint=http://127.0.0.1:8000/v1 judge=<model there> out=<folder> [mode=pairwise]

Six criteria, as scores or, with mode=pairwise, as preferences in both orders. The same
command continues after an interruption and repeats failed requests. See docs/howto/judge.md.
"""

from conf.command import command, to_continue
from evaluation.judge.config import JudgeConfig
from evaluation.judge.run import judge_answers
from evaluation.judge.summary import judge_table


@command("judge", JudgeConfig, stopped=to_continue)
def main(config: JudgeConfig) -> None:
    """Judge, print the table, and exit with 1 if a verdict is missing."""
    summary = judge_answers(config)
    print(judge_table(summary))
    print(f"{config.out}: transcript.jsonl, summary.json")
    if failed := len(summary["failed"]):
        raise SystemExit(
            f"{failed} verdicts are missing; run the same command again to request them"
        )


if __name__ == "__main__":
    main()
