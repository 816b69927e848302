"""Requests to an OpenAI-compatible endpoint, with the `openai` client (extra `eval`)."""

import json
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TEMPORARY = (408, 409, 425, 429)
"""Statuses below 500 after which the same request may succeed."""

REMEDIES = {
    401: "set the variable that api_key_env names to a valid key",
    403: "set the variable that api_key_env names to a key that may use this model",
    404: "check endpoint (most end in /v1) and judge",
    405: "check endpoint; most end in /v1",
}
"""Statuses that no further request can avoid."""


@dataclass(frozen=True)
class Endpoint:
    """An endpoint and the fields of every request.

    Attributes:
        url: address without /chat/completions.
        body: fields of a request other than its message.
        key: sent as a bearer token, and redacted from all that comes back.
        client: the `openai.OpenAI` that sends requests.
    """

    url: str
    body: dict[str, Any]
    key: str | None = field(repr=False)
    client: Any = field(repr=False)


def open_endpoint(
    url: str, body: dict[str, Any], timeout_seconds: float, key: str | None
) -> Endpoint:
    """An endpoint with its client.

    Args:
        timeout_seconds: longest time without a byte.

    Raises:
        ValueError: `url` is not valid, or `openai` is not installed.
    """
    url = check_endpoint(url)
    try:
        import openai  # takes a second or two
    except ImportError:
        raise ValueError(
            "scripts.judge needs openai; install the extra: pip install -e '.[eval]'"
        ) from None
    client = openai.OpenAI(
        api_key=key or "none",
        base_url=url,
        timeout=timeout_seconds,
        max_retries=0,  # the transcript has a line per request
        # A redirect would carry the key to another host.
        http_client=openai.DefaultHttpxClient(follow_redirects=False),
    )
    return Endpoint(url, body, key, client)


@dataclass(frozen=True)
class JudgeReply:
    """Reply of a judge.

    Attributes:
        text: None where the reply has no text.
        model: name that the endpoint gives.
        finished: reason for the end of the text.
        tokens: of prompt and text, where the endpoint counts them.
    """

    text: str | None
    model: str | None
    finished: str | None
    tokens: int | None


class RequestFailed(Exception):
    """A request without a reply.

    Attributes:
        again: another attempt may succeed.
        wait_seconds: pause that the endpoint requests, if any.
    """

    def __init__(self, message: str, *, again: bool, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.again = again
        self.wait_seconds = wait_seconds


def check_endpoint(url: str) -> str:
    """Address of an endpoint without a slash at its end.

    Raises:
        ValueError: it is not a valid URL, or contains a secret.
    """
    example = "give http://host:port/v1 or https://host/v1"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError as error:
        raise ValueError(f"endpoint={url!r} is not a valid URL ({error}); {example}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("endpoint contains a user or password; name the key with api_key_env")
    odd = any(ord(c) <= 32 or ord(c) >= 127 for c in url)
    if parts.scheme not in ("http", "https") or not host or odd:
        raise ValueError(f"endpoint={url!r} is not a valid URL; {example}")
    if "?" in url or "#" in url:
        raise ValueError(f"endpoint={url!r} has a query or fragment; {example}")
    return url.rstrip("/")


def ask(endpoint: Endpoint, prompt: str) -> JudgeReply:
    """Send one message and read the reply.

    Raises:
        RequestFailed: no reply to this request.
        ValueError: no request to this endpoint can succeed.
    """
    import openai

    # Account names in the environment's OpenAI variables are not sent to another service.
    headers = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
    if endpoint.key is None:
        headers["Authorization"] = openai.Omit()
    try:
        response = endpoint.client.chat.completions.with_raw_response.create(
            model=endpoint.body["model"],
            messages=[{"role": "user", "content": prompt}],
            extra_body=endpoint.body,
            extra_headers=headers,
        )
    except openai.APIStatusError as error:
        raise _status_error(endpoint, error.response) from None
    except openai.APIConnectionError as error:  # a timeout is one
        cause: BaseException = error
        while (inner := cause.__cause__ or cause.__context__) is not None:
            cause = inner
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ValueError(f"endpoint={endpoint.url}: {cause}; trust its certificate") from None
        reason = str(error) if isinstance(error, openai.APITimeoutError) else str(cause)
        raise RequestFailed(_redact(endpoint, reason or type(cause).__name__), again=True) from None
    return _read_reply(_redact(endpoint, response.text))


def _status_error(endpoint: Endpoint, response: Any) -> RequestFailed | ValueError:
    """Error for a status other than 200: fatal, or of this request alone."""
    status, said = response.status_code, _redact(endpoint, response.text)
    text = f"HTTP {status}: {' '.join(said.split())[:300]}".removesuffix(": ")
    if status in REMEDIES:
        return ValueError(f"endpoint={endpoint.url} answers {text}; {REMEDIES[status]}")
    if status < 400:
        return ValueError(f"endpoint={endpoint.url} answers {text}; give the address it moved to")
    wait = response.headers.get("Retry-After", "")
    return RequestFailed(
        text,
        again=status >= 500 or status in TEMPORARY,
        wait_seconds=float(wait) if wait.isascii() and wait.isdigit() else None,
    )


def _redact(endpoint: Endpoint, text: str) -> str:
    return text if endpoint.key is None else text.replace(endpoint.key, "[api key]")


def _read_reply(content: str) -> JudgeReply:
    try:
        body = json.loads(content)
        choice = body["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, RecursionError, TypeError, KeyError, IndexError):
        raise RequestFailed("the response is not a chat completion", again=True) from None
    usage = body.get("usage")
    return JudgeReply(
        text=_drop_surrogates(text),
        model=_drop_surrogates(body.get("model")),
        finished=_drop_surrogates(choice.get("finish_reason")),
        tokens=usage.get("total_tokens") if isinstance(usage, dict) else None,
    )


def _drop_surrogates(value: object) -> str | None:
    """A text without lone surrogates, which UTF-8 cannot encode."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
