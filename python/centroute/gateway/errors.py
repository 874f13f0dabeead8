"""Errors as OpenAI's API shapes them: a status and ``{"error": {message, type, param, code}}``."""

import json
from http import HTTPStatus

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
UPSTREAM_ERROR = "upstream_error"


class GatewayError(Exception):
    """A request that gets an error as its answer.

    Attributes
    ----------
    status
        HTTP status.
    message
        What is wrong and what would help; holds no secret.
    kind
        The ``type`` of the error.
    param
        The field of the request that is at fault.
    code
        A word for programs.
    headers
        Headers of the answer beside its content type and length.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> bytes:
        """The answer's JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> GatewayError:
    """A request that its sender has to change: status 400."""
    return GatewayError(HTTPStatus.BAD_REQUEST, message, param=param, code=code)
