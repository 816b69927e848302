"""Configuration of a judge: questions, answers, endpoint, retries."""

import math
import os
from dataclasses import dataclass, field
from typing import Any

from evaluation.judge.client import Endpoint, check_endpoint, open_endpoint

MODES = ("single", "pairwise")
HIGHEST_SCALE = 10
OWN = ("model", "messages", "temperature", "max_tokens", "stream", "n")
"""Fields of a request that `body` may not set."""


@dataclass(kw_only=True)
class JudgeConfig:
    """Questions, answers, the judge and its endpoint."""

    questions: str
    """An .xlsx table or .jsonl file of open questions."""
    answers: dict[str, str] = field(default_factory=dict, metadata={"free_keys": True})
    """Files of answers by name of their author; the judge does not see the names."""
    endpoint: str
    """Address of an OpenAI-compatible service, up to /chat/completions: http://host:port/v1."""
    judge: str
    """Name of the judging model at the endpoint."""
    out: str
    """Folder of transcript and summary; the same command continues an interrupted one."""
    mode: str = "single"
    """`single`: scores for every answer; `pairwise`: the better of two answers, in both orders."""
    scale: int = 3
    """With `single`: scores are whole numbers from 1 to this, 2 to 10."""
    api_key_env: str | None = None
    """Name of the environment variable with the key; the key is never written to a file."""
    temperature: float | None = 0.0
    """Of the judge's sampling; null: the endpoint's default, which some models require."""
    max_tokens: int | None = 1024
    """Most tokens of a reply; null: the endpoint's default."""
    body: dict[str, Any] = field(default_factory=dict, metadata={"free_keys": True})
    """Further fields of every request, as the endpoint defines them:
    `body={response_format: {type: json_object}}`."""
    workers: int = 4
    """Concurrent requests."""
    attempts: int = 5
    """Requests for one verdict before the verdict is listed as failed."""
    backoff_seconds: float = 1.0
    """Pause before the second attempt; doubles with each further attempt, up to a minute. A longer
    Retry-After of the endpoint is respected, up to a minute."""
    timeout_seconds: float = 120.0
    """Time without a byte from the endpoint after which an attempt has failed."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        self._check_what()
        if not 2 <= self.scale <= HIGHEST_SCALE:
            raise ValueError(f"scale={self.scale}: must be in 2 to {HIGHEST_SCALE}")
        for name in ("workers", "attempts", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: must be at least 0, or null")
        if not 0 <= self.backoff_seconds < math.inf:
            raise ValueError(f"backoff_seconds={self.backoff_seconds}: must be at least 0")
        if not 0 < self.timeout_seconds < math.inf:
            raise ValueError(f"timeout_seconds={self.timeout_seconds}: must be above 0")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")
        if own := [name for name in OWN if name in self.body]:
            raise ValueError(
                f"body: {', '.join(own)} cannot be set there; use the fields of that name"
            )

    def _check_what(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r}: one of {', '.join(MODES)}")
        if not self.judge.strip():
            raise ValueError("judge is empty; name the model that judges")
        check_endpoint(self.endpoint)
        for name, path in self.answers.items():
            if not (isinstance(name, str) and name.strip() and isinstance(path, str) and path):
                raise ValueError(
                    f"answers: {name!r}: {path!r} does not give a file to a name; write "
                    "answers={name: file.jsonl, ...}"
                )
        least = 2 if self.mode == "pairwise" else 1
        if len(self.answers) < least:
            raise ValueError(
                f"answers: {len(self.answers)} files, mode={self.mode} needs at least {least}; "
                "give {name: file.jsonl, ...}"
            )

    def open_endpoint(self) -> Endpoint:
        """The endpoint with its key; ValueError if the variable has no valid key."""
        key = None
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env, "").strip()
            if not key:
                raise ValueError(
                    f"api_key_env={self.api_key_env}: the environment variable is missing or "
                    "empty; export it, or leave api_key_env out"
                )
            if not key.isascii() or not key.isprintable():
                raise ValueError(
                    f"api_key_env={self.api_key_env}: its value is not one line of printable ASCII"
                )
        body = {"model": self.judge, **self.body}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        return open_endpoint(self.endpoint, body, self.timeout_seconds, key)
