"""What a client is told when it gets no reply, in the shape of OpenAI's API."""

from typing import Any


class ApiError(Exception):
    """A request that is refused, or failed.

    Attributes:
        status: of HTTP.
        message: for people, one sentence.
        code: for programs, as OpenAI names it where OpenAI has it; None = none.
        param: the field of the request that is meant; None = none.
    """

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_exceeded"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What is sent along."""
        return {"Retry-After": "1"} if self.status == 429 else {}
