"""Configuration of the server."""

from dataclasses import dataclass
from pathlib import Path

from inference.generation.load import LoadConfig


@dataclass(kw_only=True)
class ServeConfig(LoadConfig):
    """Model, address, access and limits.

    The inherited sampling fields are the defaults of requests. A request without a seed samples
    from `seed` and the number of the request, so that equal requests get different answers.
    """

    max_new_tokens: int = 1024
    """Default of a request: most ids of an answer, including EOS."""
    name: str | None = None
    """Value of `model` in requests; null: the folder's name."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens the server to the network, give an `api_key` then."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    api_key: str | None = None
    """Key that clients must send as `Authorization: Bearer <key>`; `'${oc.env:NAME}'` reads it from
    the environment, which hides it from other users of the machine. null: no key is required."""
    slots: int = 4
    """Requests that generate concurrently, each in a thread."""
    queue: int = 32
    """Requests that may wait for a slot, in order; further ones get status 429."""
    batch_size: int = 16
    """Most prompts of a request to /v1/completions; they share a slot."""
    longest_prompt: int = 16_384
    """Most tokens of a prompt, including BOS."""
    longest_answer: int = 4096
    """Largest `max_tokens` of a request."""
    max_body_bytes: int = 4 * 2**20
    """Most bytes of the body of a request; larger ones get status 413."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = ("slots", "batch_size", "longest_prompt", "longest_answer", "max_body_bytes")
        for field in positive:
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)}: must be at least 1")
        if self.queue < 0:
            raise ValueError(f"queue={self.queue}: must be at least 0 (no request waits)")
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port={self.port}: must be 0 to 65535; 0 takes a free port")
        if self.max_new_tokens > self.longest_answer:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens} is more than longest_answer="
                f"{self.longest_answer}; raise longest_answer too"
            )
        if self.api_key == "":
            raise ValueError("api_key is empty; give a key, or null to require none")
        if self.name == "":
            raise ValueError("name is empty; give a name, or null for the folder's name")

    @property
    def served_name(self) -> str:
        """Name of the model in requests."""
        return self.name or Path(self.folder).resolve().name
