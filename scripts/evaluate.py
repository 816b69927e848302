"""Evaluate a model on benchmarks: a prediction per question, accuracies with intervals.

    python -m scripts.evaluate folder=<HF folder | run | adapter> benchmarks=<folder> \\
        tasks='[mmlu, ceval, cmmlu]' out=<folder> [shots=5] [scoring=letters] [limit=50]
    torchrun --nproc-per-node 8 -m scripts.evaluate ...
    python -m scripts.evaluate folder=... tasks='[sample]' shots=0 scoring=cloze out=<folder>
    python -m scripts.evaluate folder=... tasks='[lm_eval:arc_easy]' shots=0 out=<folder>

The same command continues after an interruption. `lm_eval:<task>` is any task of
lm-evaluation-harness (extra `harness`). `scripts.compare` compares two models.
"""

from collections.abc import Callable
from typing import Any

from conf.command import command, to_continue
from evaluation.benchmarks.registry import open_tasks
from evaluation.multiple_choice.accuracy import table
from evaluation.multiple_choice.config import RESULTS, EvaluateConfig
from evaluation.multiple_choice.prompts import write_prompts
from evaluation.multiple_choice.run import evaluate_tasks
from model.device import compute_dtype
from pretrained.load import open_model
from training.distributed import World, start_world


def find_lm_eval() -> Callable[..., str]:
    """Function that runs tasks of lm-evaluation-harness; ValueError if lm-eval is missing."""
    try:
        from evaluation.multiple_choice.lm_eval_adapter import run_lm_eval
    except ImportError as error:
        raise ValueError(
            f"tasks named lm_eval:... need lm-eval ({error}); install it: pip install -e "
            "'.[harness]'"
        ) from None
    return run_lm_eval


def report(config: EvaluateConfig, summary: dict[str, Any], world: World) -> None:
    """Print the table of accuracies and notes on how the questions were scored."""
    world.print(table(summary))
    if config.limit is not None:
        world.print(
            f"limit={config.limit}: at most {config.limit:,} questions of each task were asked"
        )
    for name, one in summary.items():
        if one["moved_borders"]:
            world.print(
                f"{name}: in {one['moved_borders']:,} questions the tokenizer joins an answer with "
                "the text before it; there every id that differs is scored"
            )
    world.print(f"{config.out}: predictions per question, summary.json")


@command("evaluate", EvaluateConfig, stopped=to_continue)
def main(config: EvaluateConfig) -> None:
    """Open tasks and model, answer, and print the table."""
    tasks = open_tasks(config.own_tasks, config.benchmarks, config.variant, config.limit)
    for task in tasks:
        write_prompts(task, config)  # refuses unusable questions before a model is loaded
    run_lm_eval = find_lm_eval() if config.lm_eval_tasks else None
    with start_world(config.device) as world:
        dtype = compute_dtype(config.dtype, world.device)
        model, tokenizer = open_model(config.folder, dtype, world.device, base=config.base)
        model.requires_grad_(False)
        if tasks:
            report(config, evaluate_tasks(config, tasks, model, tokenizer, world), world)
        if run_lm_eval is not None:
            world.print(run_lm_eval(config, model, tokenizer, world))
            world.print(f"{config.out}: {RESULTS}")


if __name__ == "__main__":
    main()
