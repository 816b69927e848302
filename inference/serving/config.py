"""What a server is told at its start."""

from dataclasses import dataclass
from pathlib import Path

from inference.generation.load import SpeakerConfig


@dataclass(kw_only=True)
class ServeConfig(SpeakerConfig):
    """Which model answers, to whom, and how much of it at once.

    The inherited sampling fields hold where a request leaves them out. A request without a seed
    draws from `seed` and its own number, so that the same question is answered differently.
    """

    max_new_tokens: int = 1024
    """Most ids of an answer, its EOS included, where a request does not say."""
    name: str | None = None
    """The `model` that requests ask for; null: the folder's name."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens the server to the network, give an `api_key` then."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    api_key: str | None = None
    """What clients must send as `Authorization: Bearer <key>`; `'${oc.env:NAME}'` reads it from the
    environment, where other users of the machine do not see it. null: everybody may ask."""
    slots: int = 4
    """Requests that generate at the same time, each in a thread."""
    queue: int = 32
    """Requests that may wait for a slot, in order; more are answered with 429."""
    batch_size: int = 16
    """Most prompts of one request to /v1/completions; they share a slot."""
    longest_prompt: int = 16_384
    """Most tokens of a prompt, BOS included, whatever else the model could take."""
    longest_answer: int = 4096
    """Most tokens that a request may ask for."""
    max_body_bytes: int = 4 * 2**20
    """Most bytes of a request's body; larger ones are answered with 413."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = ("slots", "batch_size", "longest_prompt", "longest_answer", "max_body_bytes")
        for field in positive:
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)}: must be at least 1")
        if self.queue < 0:
            raise ValueError(f"queue={self.queue}: must be at least 0; with 0 nobody waits")
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port={self.port}: must lie in 0 to 65535; 0 takes a free one")
        if self.max_new_tokens > self.longest_answer:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens} is more than longest_answer="
                f"{self.longest_answer}; raise that too"
            )
        if self.api_key == "":
            raise ValueError("api_key is empty; give a key, or null to let everybody ask")
        if self.name == "":
            raise ValueError("name is empty; give one, or null for the folder's name")

    @property
    def served_name(self) -> str:
        """The model's name, as requests spell it."""
        return self.name or Path(self.folder).resolve().name
