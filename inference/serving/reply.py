"""Responses in OpenAI's format: whole, or in chunks of a stream."""

import secrets
import time
from typing import Any

from inference.generation.generate import Event
from inference.serving.scheduler import GenerationRequest

FINISH_REASONS = {"eos": "stop", "stop": "stop", "length": "length", "context": "length"}


class ResponseBuilder:
    """Response of a request, built from its events.

    Args:
        model: name in the response.
        chat: an answer to messages; otherwise continued texts.
        usage_in_stream: a last chunk has the token counts.

    Attributes:
        id: of the response.
        completion_tokens: ids generated so far, including EOS.
        finish_reasons: of each choice; None while it is generated.
    """

    def __init__(
        self, work: GenerationRequest, model: str, *, chat: bool, usage_in_stream: bool
    ) -> None:
        self.model, self.chat, self.usage_in_stream = model, chat, usage_in_stream
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.prompt_tokens = sum(map(len, work.prompts))
        self.completion_tokens = 0
        self.texts = [""] * len(work.prompts)
        self.finish_reasons: list[str | None] = [None] * len(work.prompts)

    @property
    def usage(self) -> dict[str, int]:
        """Token counts."""
        total = self.prompt_tokens + self.completion_tokens
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {**counts, "total_tokens": total}

    def add(self, event: Event) -> None:
        """Add an event."""
        self.completion_tokens += 1
        self.texts[event.prompt] += event.text
        if event.finished is not None:
            self.finish_reasons[event.prompt] = FINISH_REASONS[event.finished]

    def whole(self) -> dict[str, Any]:
        """Body of a response without stream, after the last event."""
        choices = []
        for n, (text, reason) in enumerate(zip(self.texts, self.finish_reasons, strict=True)):
            content: dict[str, Any] = {"text": text}
            if self.chat:
                content = {"message": {"role": "assistant", "content": text, "refusal": None}}
            choices.append({"index": n, **content, "logprobs": None, "finish_reason": reason})
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage}

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first event."""
        return [self._chunk(0, {"role": "assistant", "content": ""})] if self.chat else []

    def chunks(self, event: Event) -> list[dict[str, Any]]:
        """Chunks of an event; mostly one."""
        found = []
        if event.text:
            content = {"content": event.text} if self.chat else event.text
            found.append(self._chunk(event.prompt, content))
        if event.finished is not None:
            reason = FINISH_REASONS[event.finished]
            found.append(self._chunk(event.prompt, {} if self.chat else "", reason))
        return found

    def closing(self) -> list[dict[str, Any]]:
        """Chunks after the last event."""
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
