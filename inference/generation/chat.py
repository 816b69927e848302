"""A conversation with a model: what was said, and the next answer as it comes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inference.generation.generate import context_limit, stream
from inference.generation.load import LoadConfig, LoadedModel
from inference.generation.sampling import SamplingConfig
from tokenizer.chat import Message, encode_prompt


@dataclass(kw_only=True)
class ChatConfig(LoadConfig):
    """Who answers, and how."""

    system: str = field(default="", metadata={"text": True})
    """System prompt before the first question."""
    max_new_tokens: int = 1024
    """Most ids of one answer, its EOS included."""
    temperature: float = 0.7
    """Divides the logits; 0 takes the most probable id."""
    top_p: float = 0.95
    """Keep the fewest most probable ids that together have at least this probability."""


class Conversation:
    """Questions and answers in turn.

    Attributes:
        turns: what was said, without the system message.
        system: the system message, or "".
        finished: why the last answer ended, see `inference.generation.generate.Event`;
        `interrupted` if nobody
            waited for its end.
    """

    def __init__(self, loaded: LoadedModel, sampling: SamplingConfig, system: str = "") -> None:
        self._loaded, self._sampling = loaded, sampling
        self.system = system
        self.turns: list[Message] = []
        self.finished = ""
        self._answers = 0

    def messages(self) -> list[Message]:
        """All that was said, the system message first."""
        return [*([Message("system", self.system)] if self.system else []), *self.turns]

    def answer(self, question: str) -> Iterator[str]:
        """Ask, and take the answer piece by piece.

        Whoever stops taking stops the model; what came until then counts as the answer. A question
        that got none is forgotten.

        Raises:
            ValueError: the question is empty, or the context is full.
        """
        asked = [*self.messages(), Message("user", question)]
        prompt = encode_prompt(self._loaded.tokenizer, asked)
        limit = context_limit(self._loaded.engine.model.config)
        if limit is not None and len(prompt) >= limit:
            raise ValueError(
                f"the context is full: the conversation has {len(prompt):,} tokens and the model "
                f"takes {limit:,}; /reset begins a new one"
            )
        said, self.finished = "", "interrupted"
        try:
            for event in stream(
                self._loaded.engine,
                [prompt],
                self._sampling,
                eos_ids=self._loaded.eos_ids,
                decode=self._loaded.tokenizer.decode,
                continue_text=False,
                indices=[self._answers],
            ):
                said += event.text
                self.finished = event.finished or self.finished
                if event.text:
                    yield event.text
        finally:
            self._answers += 1
            if said.strip():
                self.turns += [Message("user", question), Message("assistant", said.strip())]

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        self.turns.clear()

    def save(self, path: Path) -> None:
        """Write the conversation as one line of a .jsonl file, as instruction tuning reads it."""
        if not self.turns:
            raise ValueError("nothing has been said yet; there is nothing to save")
        messages = [message.as_dict() for message in self.messages()]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
