"""Errors of the API, in OpenAI's form."""

from typing import Any


class APIError(Exception):
    """An error response.

    Attributes:
        status: of the HTTP response.
        message: text for the user.
        param: parameter that caused the error, such as `messages[0].role`; None: no single one.
        code: identifier for programs.
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


def failure() -> APIError:
    """Error for a failure of the server; details are only in its log."""
    message = "the server failed on this request; the reason is in its log"
    return APIError(500, message, code="internal_error")


def shutting_down() -> APIError:
    """Error for requests that the shutdown of the server interrupts."""
    return APIError(503, "the server is shutting down", code="shutting_down")
