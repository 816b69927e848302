"""Talk with a model in the terminal: python -m scripts.chat folder=<HF folder | run | adapter>

A backslash at the end of a line, or a block between two lines of triple quotes, makes a message of
several lines. Ctrl-C stops an answer, and twice where nothing is being answered, or Ctrl-D, leaves.
Commands:

    /reset         begin a new conversation
    /system TEXT   set the system message (without TEXT: remove it) and begin a new conversation
    /save FILE     append the conversation to a .jsonl file
    /help          this
    /quit          leave
"""

import sys
from contextlib import suppress
from pathlib import Path

from conf.command import command
from inference.generation.chat import ChatConfig, Conversation
from inference.generation.load import load_for_generation

QUOTES = '"""'
NOTES = {
    "length": "the answer reached max_new_tokens",
    "context": "the context is full; /reset begins a new conversation",
    "interrupted": "stopped",
}
"""Remarks on an answer that did not end by itself."""


def read_line(prompt: str) -> str:
    """One line; from a pipe no prompt is shown."""
    return input(prompt if sys.stdin.isatty() else "")


def read_message() -> str:
    """The next message of the user, of one or several lines; EOFError at the end."""
    line = read_line("> ")
    if line.strip() == QUOTES:
        lines = []
        while (line := read_line(". ")).strip() != QUOTES:
            lines.append(line)
        return "\n".join(lines)
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = read_line(". ")
    return "\n".join([*lines, line])


def obey(line: str, conversation: Conversation) -> bool:
    """Carry out a command; returns False if the chat ends."""
    name, _, rest = line.strip().partition(" ")
    if name == "/quit":
        return False
    if name == "/reset":
        conversation.reset()
        print("(a new conversation)")
    elif name == "/system":
        conversation.system = rest.strip()
        conversation.reset()
        print("(a new conversation)")
    elif name == "/save" and rest.strip():
        conversation.save(Path(rest.strip()).expanduser())
        print(f"(saved to {rest.strip()})")
    elif name == "/help":
        print(__doc__)
    else:
        print(f"(no such command: {line.strip()}; /help shows them)")
    return True


def show_answer(conversation: Conversation, question: str) -> None:
    """Print an answer as it comes, until it ends or Ctrl-C."""
    pieces = conversation.answer(question)
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pieces.close()  # pyright: ignore[reportAttributeAccessIssue] it is a generator
    print()
    if note := NOTES.get(conversation.finished):
        print(f"({note})")


def talk(conversation: Conversation) -> None:
    """Take turns until /quit or Ctrl-D."""
    asked_to_leave = False
    while True:
        try:
            message = read_message()
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            if asked_to_leave or not sys.stdin.isatty():
                raise
            print("(Ctrl-C again, Ctrl-D or /quit leaves)")
            asked_to_leave = True
            continue
        asked_to_leave = False
        if not message.strip():
            continue
        try:
            if not message.startswith("/") or "\n" in message:
                show_answer(conversation, message)
            elif not obey(message, conversation):
                return
        except KeyboardInterrupt:
            print("\n(stopped)")
        except (ValueError, OSError) as error:
            print(f"({error})")


@command("chat", ChatConfig, stopped="stopped; /save keeps a conversation")
def main(config: ChatConfig) -> None:
    """Open the model and talk."""
    loaded = load_for_generation(config)
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401 input() then has history and editing
        print(f"{config.folder}; /help shows the commands, Ctrl-D leaves")
    talk(Conversation(loaded, config, config.system))


if __name__ == "__main__":
    main()
