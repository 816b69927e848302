"""One question to an OpenAI-compatible endpoint, over the standard library's HTTP."""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from email.message import Message
from typing import IO, Any
from urllib.parse import urlsplit

MOST_BYTES = 4 * 2**20
"""Of a response that are read; a verdict is far shorter."""

AGAIN = (408, 409, 425, 429)
"""Statuses below 500 that pass by themselves."""

REMEDIES = {
    401: "set the variable that api_key_env names to a valid key",
    403: "set the variable that api_key_env names to a key that may use this model",
    404: "check endpoint (it mostly ends in /v1) and judge",
    405: "check endpoint; it mostly ends in /v1",
}
"""Statuses that every further request would meet too."""


@dataclass(frozen=True)
class Endpoint:
    """Whom to ask, and how.

    Attributes:
        url: up to /chat/completions.
        body: what every request holds besides its message.
        key: sent as a bearer token, and blotted out of all that comes back.
        timeout_seconds: without a byte.
    """

    url: str
    body: dict[str, Any]
    timeout_seconds: float
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Reply:
    """What the judge said.

    Attributes:
        text: None where it gave no text.
        model: as the endpoint names it.
        finished: why the text ends.
        tokens: of prompt and text, where the endpoint counts them.
    """

    text: str | None
    model: str | None
    finished: str | None
    tokens: int | None


class Unanswered(Exception):
    """No reply came of a request.

    Attributes:
        again: another attempt may succeed.
        wait_seconds: what the endpoint asks to be given, if it does.
    """

    def __init__(self, message: str, *, again: bool, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.again = again
        self.wait_seconds = wait_seconds


def check_endpoint(url: str) -> str:
    """The address of an endpoint without a slash at its end.

    Raises:
        ValueError: it is none, or holds what would have to be kept secret.
    """
    example = "give http://host:port/v1 or https://host/v1"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError as error:
        raise ValueError(f"endpoint={url!r} is no address ({error}); {example}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("endpoint: holds a user or password; name the key with api_key_env")
    odd = any(ord(c) <= 32 or ord(c) >= 127 for c in url)
    if parts.scheme not in ("http", "https") or not host or odd:
        raise ValueError(f"endpoint={url!r} is no address; {example}")
    if "?" in url or "#" in url:
        raise ValueError(f"endpoint={url!r}: has a query or fragment; {example}")
    return url.rstrip("/")


def ask(endpoint: Endpoint, prompt: str) -> Reply:
    """Send one message and read what comes back.

    Raises:
        Unanswered: no reply came, this time or for this message.
        ValueError: no request to this endpoint can succeed.
    """
    request = urllib.request.Request(
        f"{endpoint.url}/chat/completions",
        data=json.dumps(
            endpoint.body | {"messages": [{"role": "user", "content": prompt}]}
        ).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "jiuzhou-judge"},
    )
    if endpoint.key is not None:
        request.add_header("Authorization", f"Bearer {endpoint.key}")
    try:
        with _OPENER.open(request, timeout=endpoint.timeout_seconds) as response:
            content = response.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise _refused(endpoint, error) from None
    # URLError and timeouts are OSErrors; HTTPException: the answer broke off, or was not HTTP.
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise ValueError(f"endpoint={endpoint.url}: {reason}; trust its certificate") from None
        said = str(reason) or type(reason).__name__
        raise Unanswered(_blot(endpoint, said), again=True) from None
    if len(content) > MOST_BYTES:
        raise Unanswered(f"the response is longer than {MOST_BYTES:,} bytes", again=True)
    return _reply(_blot(endpoint, content.decode("utf-8", "replace")))


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it would carry the key to another host."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002 names of the base class
        fp: IO[bytes],  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: Message,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        return None


_OPENER = urllib.request.build_opener(_StayHere)


def _refused(endpoint: Endpoint, error: urllib.error.HTTPError) -> Unanswered | ValueError:
    """What a status other than 200 means."""
    try:
        with error:
            said = _blot(endpoint, error.read(MOST_BYTES).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        said = ""
    text = f"HTTP {error.code}: {' '.join(said.split())[:300]}".removesuffix(": ")
    if error.code in REMEDIES:
        return ValueError(f"endpoint={endpoint.url} answers {text}; {REMEDIES[error.code]}")
    if error.code < 400:
        return ValueError(f"endpoint={endpoint.url} answers {text}; give the address it moved to")
    wait = error.headers.get("Retry-After", "")
    return Unanswered(
        text,
        again=error.code >= 500 or error.code in AGAIN,
        wait_seconds=float(wait) if wait.isascii() and wait.isdigit() else None,
    )


def _blot(endpoint: Endpoint, text: str) -> str:
    return text if endpoint.key is None else text.replace(endpoint.key, "[api key]")


def _reply(content: str) -> Reply:
    try:
        body = json.loads(content)
        choice = body["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, RecursionError, TypeError, KeyError, IndexError):
        raise Unanswered("the response is no chat completion", again=True) from None
    usage = body.get("usage")
    return Reply(
        text=_whole(text),
        model=_whole(body.get("model")),
        finished=_whole(choice.get("finish_reason")),
        tokens=usage.get("total_tokens") if isinstance(usage, dict) else None,
    )


def _whole(value: object) -> str | None:
    """A text without halves of characters, which could not be written."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
