"""Which headers pass from client to upstream and back, and values that are safe to send."""

from collections.abc import Iterable
from urllib.parse import quote

Header = tuple[bytes, bytes]
Headers = list[Header]

# RFC 9110, 7.6.1: these speak of one connection only.
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"}
    | {b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
# The gateway states these itself; a cookie of one side is none of the other's.
_NOT_UPSTREAM = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"content-type",
    b"accept-encoding",
    b"expect",
    b"cookie",
}
_NOT_DOWNSTREAM = _HOP_BY_HOP | {b"content-length", b"set-cookie", b"date", b"server", b"alt-svc"}
_SECRETS = frozenset({b"authorization", b"api-key", b"x-api-key"})
# Ours, and what proxies before us say of the client, which is nobody's business behind us.
_DROPPED_PREFIXES = (b"x-centroute-", b"x-forwarded-", b"x-real-ip", b"forwarded", b"via")
_PRINTABLE_WITHOUT_PERCENT = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def to_upstream(headers: Iterable[Header], *, with_secrets: bool) -> Headers:
    """Headers of a request as they pass on; the client's own keys only ``with_secrets``."""
    return _passed(headers, _NOT_UPSTREAM if with_secrets else _NOT_UPSTREAM | _SECRETS)


def to_client(headers: Iterable[Header]) -> Headers:
    """Headers of an upstream's answer as they pass on."""
    return _passed(headers, _NOT_DOWNSTREAM)


def safe_value(text: str) -> bytes:
    r"""A text as a header's value: printable ASCII as it is, all else percent-encoded.

    Examples
    --------
    >>> safe_value("gpt-5@high"), safe_value("naïve\r\nx: y")
    (b'gpt-5@high', b'na%C3%AFve%0D%0Ax: y')
    """
    return quote(text, safe=_PRINTABLE_WITHOUT_PERCENT, errors="replace").encode("ascii")


def _passed(headers: Iterable[Header], dropped: frozenset[bytes]) -> Headers:
    lowered = [(name.lower(), value) for name, value in headers]
    tokens = b",".join(value for name, value in lowered if name == b"connection").split(b",")
    named = {token.strip().lower() for token in tokens}
    return [
        (name, value)
        for name, value in lowered
        if name not in dropped and name not in named and not name.startswith(_DROPPED_PREFIXES)
    ]
