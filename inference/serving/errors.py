"""What a client is told instead of an answer, in OpenAI's form."""

from typing import Any


class Refusal(Exception):
    """A reason not to answer.

    Attributes:
        status: of the HTTP response.
        message: a sentence for the client.
        param: the parameter that is to blame, if one is, such as `messages[0].role`.
        code: a word for programs.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the response."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def failure() -> Refusal:
    """What is said of a mistake of ours; the log says more."""
    message = "the server failed while it worked on this request; its log has the reason"
    return Refusal(500, message, code="internal_error")


def shutting_down() -> Refusal:
    """What is said to requests that the server's end cuts off."""
    return Refusal(503, "the server is shutting down", code="shutting_down")
