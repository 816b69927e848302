"""Bodies of requests: their fields and the support for each field.

A parameter is supported, or has the value without effect, or is refused by name; no parameter is
dropped silently or reinterpreted.
"""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import TypeAliasType

from inference.generation.sampling import SamplingConfig
from inference.serving.errors import APIError

MAX_STOPS = 4
"""OpenAI's limit."""

NOT_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "parallel_tool_calls": (None, True, False),
    "functions": (None, []),
    "function_call": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "store": (None, False),
    "service_tier": (None, "auto", "default"),
    "audio": (None,),
    "metadata": (None, {}),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "web_search_options": (None,),
}
"""Unsupported parameters of OpenAI's API, with their values without effect, which are accepted."""

REMEDIES = {
    "n": "repeat the request with other seeds",
    "best_of": "repeat the request with other seeds",
    "presence_penalty": "use repetition_penalty",
    "frequency_penalty": "use repetition_penalty",
    "echo": "put the prompt before the answer yourself",
}

LABELS = ("user", "safety_identifier", "prompt_cache_key")
"""Labels of requests for OpenAI's accounting; any text is accepted."""

MESSAGE_NULLS = ("refusal", "tool_calls", "function_call", "audio", "annotations", "name")
"""Keys of answers that clients return in `messages`; they must be empty."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    """Part of the content of a message."""

    type: Literal["text"]
    text: str


Texts = TypeAliasType("Texts", Annotated[list[str], FailFast()])
Parts = TypeAliasType("Parts", Annotated[list[TextPart], FailFast()])
# Aliases, because FailFast cannot be a direct member of a union.


class MessageBody(_Strict):
    """One message; parts of its content are joined without a separator."""

    role: str
    content: str | Parts

    @property
    def text(self) -> str:
        """Content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(_Strict):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Body(_Strict):
    """Fields of both kinds of requests; null means the server's default."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | Texts | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def usage_in_stream(self) -> bool:
        """The last chunk of the stream has the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[MessageBody], FailFast()]
    max_completion_tokens: int | None = None


class CompletionBody(Body):
    """POST /v1/completions."""

    prompt: Any

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """Text or ids of each prompt.

        Raises:
            APIError: a prompt is neither text nor ids, or no prompt is given.
        """
        prompt = self.prompt
        if isinstance(prompt, str) or (prompt and _all_ids(prompt)):
            prompt = [prompt]
        well_formed = isinstance(prompt, list) and (
            all(isinstance(text, str) for text in prompt) or all(map(_all_ids, prompt))
        )
        if not well_formed:
            reason = "prompt: must be a text, a list of texts, a list of token ids, or a list of "
            raise APIError(400, f"{reason}lists of token ids", param="prompt")
        if not prompt or not all(prompt):
            raise APIError(400, "prompt: is empty; give a text or token ids", param="prompt")
        return prompt


B = TypeVar("B", bound=Body)


def read_body(raw: bytes, kind: type[B]) -> B:
    """Request from the bytes of a body.

    Raises:
        APIError: the body is invalid; the message names the parameter.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise APIError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise APIError(400, "the body must be a JSON object", code="invalid_json")
    _drop_meaningless(data)
    try:
        body = kind.model_validate(data)
    except ValidationError as error:
        raise _explained(error.errors(include_url=False, include_context=False), data) from None
    if body.stream_options is not None and not body.stream:
        message = "stream_options: needs stream=true; add it, or omit stream_options"
        raise APIError(400, message, param="stream_options")
    return body


def sampling_of(body: Body, defaults: SamplingConfig, longest_answer: int) -> SamplingConfig:
    """Sampling configuration of a request.

    Raises:
        APIError: a parameter is out of range; the message names it.
    """
    own = {field.name: getattr(defaults, field.name) for field in fields(SamplingConfig)}
    config = SamplingConfig(**own)
    changes = {name: value for name in own if (value := getattr(body, name, None)) is not None}
    if isinstance(body.stop, str):
        changes["stop"] = [body.stop]
    if any(map(_has_no_utf8, changes.get("stop", ()))):
        raise APIError(400, "stop: contains a lone surrogate; give valid text", param="stop")
    if len(changes.get("stop", ())) > MAX_STOPS:
        raise APIError(400, f"stop: has more than {MAX_STOPS} texts", param="stop")
    name, wanted = _max_tokens(body)
    if wanted is not None:
        if not 1 <= wanted <= longest_answer:
            message = f"{name}={_shown(wanted)}: must be 1 to {longest_answer:,} on this server"
            raise APIError(400, message, param=name)
        changes["max_new_tokens"] = wanted
    try:
        return replace(config, **changes)
    except ValueError as error:  # its message begins with the name of the field
        reason = str(error)
        param = next((name for name in changes if reason.startswith(name)), None)
        raise APIError(400, reason, param=param) from None


def _max_tokens(body: Body) -> tuple[str, int | None]:
    newer = getattr(body, "max_completion_tokens", None)
    if newer is None:
        return "max_tokens", body.max_tokens
    if body.max_tokens not in (None, newer):
        message = "max_tokens and max_completion_tokens are synonyms; give one of the two"
        raise APIError(400, message, param="max_completion_tokens")
    return "max_completion_tokens", newer


def _drop_meaningless(data: dict[str, Any]) -> None:
    """Remove parameters without effect; APIError for unsupported values."""
    for name in [name for name in data if name in NOT_IMPLEMENTED]:
        value = data.pop(name)
        if not _among(value, NOT_IMPLEMENTED[name]):
            remedy = REMEDIES.get(name, "omit it")
            message = f"{name}={_shown(value)}: not implemented here; {remedy}"
            raise APIError(400, message, param=name, code="unsupported_parameter")
    for name in LABELS:
        if not isinstance(data.pop(name, None), str | None):
            raise APIError(400, f"{name}: must be a string", param=name)
    messages = data.get("messages")
    for n, message in enumerate(messages if isinstance(messages, list) else ()):
        for name in MESSAGE_NULLS if isinstance(message, dict) else ():
            if not _among(message.pop(name, None), (None, [])):
                param = f"messages[{n}].{name}"
                reason = f"{param}: not implemented here; omit it"
                raise APIError(400, reason, param=param, code="unsupported_parameter")


def _among(value: Any, harmless: Sequence[Any]) -> bool:
    """Membership that distinguishes 1 from true and 0 from false."""
    return any(value == x and isinstance(value, bool) == isinstance(x, bool) for x in harmless)


def _has_no_utf8(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _all_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(id) is int for id in value)


def _explained(errors: list[ErrorDetails], data: dict[str, Any]) -> APIError:
    """Error that names an invalid parameter and its valid values.

    If several types were tried, the type with the longest path in the body is reported.
    """
    paths = [_path(error, data) for error in errors]
    top = [path.split(".")[0].split("[")[0] for path in paths]
    chosen = max((path for path, name in zip(paths, top, strict=True) if name == top[0]), key=len)
    reasons = []
    for error, path in zip(errors, paths, strict=True):
        reason = error["msg"].replace("Input should be", "must be")
        if error["type"] == "extra_forbidden":
            reason = "no such parameter here"
        elif error["type"] == "missing":
            reason = "must be given"
        if path == chosen and reason not in reasons:
            reasons.append(reason)
    where = chosen or "a parameter's name"
    return APIError(400, f"{where}: {' or '.join(reasons)}", param=chosen or None)


def _path(error: ErrorDetails, data: Any) -> str:
    """Path of an error in the request; pydantic's path also contains the types that it tried."""
    path = ""
    for part in error["loc"]:
        missing = error["type"] == "missing" and part == error["loc"][-1]
        if isinstance(part, int) and isinstance(data, list):
            path, data = f"{path}[{part}]", data[part]
        elif isinstance(part, str) and isinstance(data, dict) and (missing or part in data):
            path, data = f"{path}.{part}" if path else part, data.get(part)
    return path


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
