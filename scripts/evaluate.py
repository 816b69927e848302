"""Put benchmarks to a model: a prediction per question, accuracies with intervals.

    python -m scripts.evaluate folder=<HF folder | run | adapter> benchmarks=<folder> \\
        tasks='[mmlu, ceval, cmmlu]' out=<folder> [shots=5] [scoring=letters] [limit=50]
    torchrun --nproc-per-node 8 -m scripts.evaluate ...
    python -m scripts.evaluate folder=... tasks='[sample]' shots=0 scoring=cloze out=<folder>

The same command goes on where it was interrupted. `scripts.compare` compares two models.
"""

from omegaconf import DictConfig, OmegaConf

from conf.command import command, register_schema
from evaluation.multiple_choice.accuracy import table
from evaluation.multiple_choice.config import EvaluateConfig, open_tasks
from evaluation.multiple_choice.prompts import write_prompts
from evaluation.multiple_choice.run import evaluate_tasks
from model.device import compute_dtype
from pretrained.load import open_model
from training.distributed import start_world

register_schema("evaluate_schema", EvaluateConfig, free_keys=("shots_of",))


@command("evaluate", resumes="the same command goes on where it was")
def main(composed: DictConfig) -> None:
    """Open tasks and model, answer, and print the table."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, EvaluateConfig)
    tasks = open_tasks(config.tasks, config.benchmarks, config.variant, config.limit)
    for task in tasks:
        write_prompts(task, config)  # says what cannot be asked before a model is loaded
    with start_world(config.device) as world:
        dtype = compute_dtype(config.dtype, world.device)
        model, tokenizer = open_model(config.folder, dtype, world.device, base=config.base)
        model.requires_grad_(False)
        summary = evaluate_tasks(config, tasks, model, tokenizer, world)
        world.say(table(summary))
        if config.limit is not None:
            world.say(f"limit={config.limit}: at most so many questions of each task were asked")
        for name, one in summary.items():
            if one["moved_borders"]:
                world.say(
                    f"{name}: in {one['moved_borders']:,} questions the tokenizer joins an answer "
                    "with the text before it; there all that differs is scored"
                )
        world.say(f"{config.out}: predictions per question, summary.json")


if __name__ == "__main__":
    main()
