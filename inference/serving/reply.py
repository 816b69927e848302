"""Answers as OpenAI spells them: whole, or in chunks."""

import secrets
import time
from typing import Any

from inference.generation.generate import Event
from inference.serving.scheduler import Work

FINISH_REASONS = {"eos": "stop", "stop": "stop", "length": "length", "context": "length"}


class Reply:
    """What becomes of a job's events.

    Args:
        model: name to put into it.
        chat: an answer to messages; else continued texts.
        usage_in_stream: whether a last chunk counts the tokens.

    Attributes:
        id: of the answer.
        completion_tokens: ids chosen so far, each EOS included.
        finish_reasons: of each choice; None while it goes on.
    """

    def __init__(self, work: Work, model: str, *, chat: bool, usage_in_stream: bool) -> None:
        self.model, self.chat, self.usage_in_stream = model, chat, usage_in_stream
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.prompt_tokens = sum(map(len, work.prompts))
        self.completion_tokens = 0
        self.texts = [""] * len(work.prompts)
        self.finish_reasons: list[str | None] = [None] * len(work.prompts)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens in and out."""
        total = self.prompt_tokens + self.completion_tokens
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {**counts, "total_tokens": total}

    def add(self, event: Event) -> None:
        """Take an event."""
        self.completion_tokens += 1
        self.texts[event.prompt] += event.text
        if event.finished is not None:
            self.finish_reasons[event.prompt] = FINISH_REASONS[event.finished]

    def whole(self) -> dict[str, Any]:
        """The body of a response without a stream, after the last event."""
        choices = []
        for n, (text, reason) in enumerate(zip(self.texts, self.finish_reasons, strict=True)):
            content: dict[str, Any] = {"text": text}
            if self.chat:
                content = {"message": {"role": "assistant", "content": text, "refusal": None}}
            choices.append({"index": n, **content, "logprobs": None, "finish_reason": reason})
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage}

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before the first event."""
        return [self._chunk(0, {"role": "assistant", "content": ""})] if self.chat else []

    def chunks(self, event: Event) -> list[dict[str, Any]]:
        """What an event adds to a stream; most often one chunk."""
        found = []
        if event.text:
            content = {"content": event.text} if self.chat else event.text
            found.append(self._chunk(event.prompt, content))
        if event.finished is not None:
            reason = FINISH_REASONS[event.finished]
            found.append(self._chunk(event.prompt, {} if self.chat else "", reason))
        return found

    def closing(self) -> list[dict[str, Any]]:
        """The chunks after the last event."""
        if not self.usage_in_stream:
            return []
        return [{**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage}]

    def _chunk(self, n: int, content: Any, reason: str | None = None) -> dict[str, Any]:
        key = "delta" if self.chat else "text"
        choice = {"index": n, key: content, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return {**chunk, "usage": None} if self.usage_in_stream else chunk

    def _head(self, kind: str) -> dict[str, Any]:
        kind = kind if self.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}
