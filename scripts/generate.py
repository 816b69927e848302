"""Continue a text, answer a question, or answer a file of prompts.

python -m scripts.generate folder=<HF folder | run | adapter> prompt="The Yangtze" [temperature=0]
python -m scripts.generate folder=... chat=true prompt="What is loess?"
python -m scripts.generate folder=... prompts=file.jsonl out=answers.jsonl [chat=true]
"""

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from conf.command import command
from inference.generation.batch import GenerateConfig, encode_text, write_answers
from inference.generation.generate import stream
from inference.generation.load import open_speaker

ConfigStore.instance().store("generate_schema", GenerateConfig)


def print_answer(config: GenerateConfig) -> None:
    """Print one answer as it comes; a continued text with its beginning."""
    speaker = open_speaker(config)
    assert config.prompt is not None
    ids = encode_text(speaker.tokenizer, config.prompt, config.chat)
    if not config.chat:
        print(config.prompt, end="", flush=True)
    for event in stream(
        speaker.runner,
        [ids],
        config,
        eos_ids=speaker.eos_ids,
        decode=speaker.tokenizer.decode,
        continue_text=not config.chat,
    ):
        print(event.text, end="", flush=True)
    print()


def answer_file(config: GenerateConfig) -> None:
    """Answer a file of prompts, and say how far that got."""
    speaker = open_speaker(config)
    try:
        written = write_answers(config, speaker)
    except KeyboardInterrupt:
        stopped = f"stopped; the same command goes on with {config.out}"
        raise KeyboardInterrupt(stopped) from None
    print(f"{config.out}: {written:,} answers written")


@command("generate")
def main(composed: DictConfig) -> None:
    """Compose, then print or write."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, GenerateConfig)
    if config.prompt is not None:
        print_answer(config)
    else:
        answer_file(config)


if __name__ == "__main__":
    main()
