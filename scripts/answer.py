"""Answer a file of open questions in the chat format, for scripts.judge.

python -m scripts.answer folder=<HF folder | run | adapter> questions=<xlsx | jsonl> out=a.jsonl
"""

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from conf.command import command
from inference.generation.answer_questions import AnswerConfig, answer_questions

ConfigStore.instance().store("answer_schema", AnswerConfig)


@command("answer")
def main(composed: DictConfig) -> None:
    """Compose, answer, and say how far that got."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, AnswerConfig)
    try:
        written = answer_questions(config)
    except KeyboardInterrupt:
        stopped = f"stopped; the same command goes on with {config.out}"
        raise KeyboardInterrupt(stopped) from None
    print(f"{config.out}: {written:,} answers written")


if __name__ == "__main__":
    main()
