"""Write benchmarks for lm-evaluation-harness, asked exactly as `scripts.evaluate` asks them.

    python -m scripts.harness benchmarks=<folder> tasks='[mmlu, ceval]' shots=5 out=harness
    lm_eval run --model hf --model_args pretrained=<HF folder>,add_bos_token=True \\
        --include_path harness --tasks jiuzhou_mmlu_released
"""

from omegaconf import DictConfig, OmegaConf

from conf.command import command, register_schema
from evaluation.multiple_choice.config import open_tasks
from evaluation.multiple_choice.harness import HarnessConfig, export_harness

register_schema("harness_schema", HarnessConfig, free_keys=("shots_of",))


@command("harness")
def main(composed: DictConfig) -> None:
    """Write the files and name the tasks."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, HarnessConfig)
    tasks = open_tasks(config.tasks, config.benchmarks, config.variant, config.limit)
    print(f"{config.out}: {' '.join(export_harness(config, tasks))}")


if __name__ == "__main__":
    main()
