"""Continue a text, answer a question, or answer a file of prompts or open questions.

python -m scripts.generate folder=<HF folder | run | adapter> prompt="The Yangtze" [temperature=0]
python -m scripts.generate folder=... chat=true prompt="What is loess?"
python -m scripts.generate folder=... prompts=file.jsonl out=answers.jsonl [chat=true]
python -m scripts.generate folder=... questions=<xlsx | jsonl> out=answers.jsonl max_new_tokens=1024
"""

from pathlib import Path

from conf.command import command, to_continue
from inference.generation.batch import GenerateConfig, encode_text, write_answers
from inference.generation.generate import stream
from inference.generation.load import load_for_generation
from inference.generation.question_files import read_open_questions


def print_answer(config: GenerateConfig) -> None:
    """Print one answer while it is generated; a continued text after its prompt."""
    loaded = load_for_generation(config)
    assert config.prompt is not None
    ids = encode_text(loaded.tokenizer, config.prompt, config.chat)
    if not config.chat:
        print(config.prompt, end="", flush=True)
    for event in stream(
        loaded.engine,
        [ids],
        config,
        eos_ids=loaded.eos_ids,
        decode=loaded.tokenizer.decode,
        continue_text=not config.chat,
    ):
        print(event.text, end="", flush=True)
    print()


def answer_file(config: GenerateConfig) -> None:
    """Answer a file of prompts or questions and print the number of new answers."""
    questions = []
    if config.questions is not None:
        questions = read_open_questions(Path(config.questions))
    loaded = load_for_generation(config)
    written = write_answers(config, loaded, questions)
    print(f"{config.out}: {written:,} answers written")


@command("generate", GenerateConfig, stopped=to_continue)
def main(config: GenerateConfig) -> None:
    """Print one answer, or write a file of answers."""
    if config.prompt is not None:
        print_answer(config)
    else:
        answer_file(config)


if __name__ == "__main__":
    main()
