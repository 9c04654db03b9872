"""The built-in pages: read once at start, served from memory."""

import email.utils
import gzip
import hashlib
import http
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

_ROUTES = {"index.html": "/", "share.html": "/share", "watch.html": "/watch/"}
"""Where the pages are, the last one with a stream's id; every other file is at its name."""

_WATCH = re.compile(r"(/watch/)[^/]+/?")

_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_CONTENT_SECURITY_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "require-trusted-types-for": "'script'",
}

_WORTH_PACKING = 0.9
"""A file is kept packed as well if that takes less than this share of its bytes."""

_CAPTURING = "camera=(self), display-capture=(self), microphone=(), geolocation=()"
_NOT_CAPTURING = "camera=(), display-capture=(), microphone=(), geolocation=()"

_EVERY_PAGE = {
    # Asked again each time, so that after an upgrade nobody has half of the old pages.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
    # The id in the path is the only key to a stream.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_ANY_FRONT_END = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


@dataclass(frozen=True)
class Representation:
    """The bytes of a page in one coding (RFC 9110 section 8.4) and the validator of these bytes."""

    coding: str
    body: bytes
    etag: str


@dataclass(frozen=True)
class Page:
    """A file of the pages, plain and, where that pays, compressed, and its header fields."""

    plain: Representation
    gzipped: Representation | None
    headers: Mapping[str, str]


class Pages:
    """The pages by path.

    Args:
        origins: The origins that may have viewers, empty for any: those may frame one, too.
    """

    def __init__(self, origins: Sequence[str] = ()) -> None:
        self._pages = {
            _ROUTES.get(file.name, f"/{file.name}"): _load(file.name, file.read_bytes(), origins)
            for file in importlib.resources.files("relayd").joinpath("web").iterdir()
            if file.is_file() and file.name[0] != "." and _suffix(file.name) in _CONTENT_TYPES
        }

    def find(self, path: str) -> Page | None:
        """Return the page at a path, None if there is none; a trailing slash does not matter."""
        if match := _WATCH.fullmatch(path):
            return self._pages.get(match[1])
        if path == _ROUTES["watch.html"]:
            return None
        return self._pages.get(path) or self._pages.get(path.removesuffix("/"))


def answer(page: Page, request: Request) -> Response:
    """Answer a GET or HEAD request for a page."""
    accepted = ",".join(request.headers.get_all("Accept-Encoding"))
    representation = page.plain
    if page.gzipped is not None and prefers_gzip(accepted):
        representation = page.gzipped
    headers = Headers(Date=email.utils.formatdate(usegmt=True), Connection="close")
    headers.update(page.headers)
    headers["ETag"] = representation.etag
    if matches(",".join(request.headers.get_all("If-None-Match")), representation.etag):
        return Response(304, http.HTTPStatus(304).phrase, headers)
    if representation.coding:
        headers["Content-Encoding"] = representation.coding
    headers["Content-Length"] = str(len(representation.body))
    return Response(200, "OK", headers, representation.body)


def prefers_gzip(accepted: str) -> bool:
    """Whether a value of Accept-Encoding (RFC 9110 section 12.5.3) has gzip no less than plain."""
    weights = {}
    for item in accepted.lower().split(","):
        coding, *parameters = (part.strip() for part in item.split(";"))
        weights[coding] = _weight(parameters)
    any_other = weights.get("*", 0.0)
    weight = weights.get("gzip", weights.get("x-gzip", any_other))
    return weight > 0 and weight >= weights.get("identity", any_other)


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def matches(condition: str, etag: str) -> bool:
    """Whether a value of If-None-Match names an ETag, compared weakly (RFC 9110 section 13.1.2)."""
    return condition.strip() == "*" or etag in re.findall(r'"[^"]*"', condition)


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2]


def _load(name: str, body: bytes, origins: Sequence[str]) -> Page:
    suffix = _suffix(name)
    headers = {"Content-Type": _CONTENT_TYPES[suffix]} | _EVERY_PAGE
    if suffix == ".html":
        policy = _CONTENT_SECURITY_POLICY | {"frame-ancestors": _frame_ancestors(name, origins)}
        headers["Content-Security-Policy"] = "; ".join(f"{k} {v}" for k, v in policy.items())
        headers["Permissions-Policy"] = _CAPTURING if name == "share.html" else _NOT_CAPTURING
    if name == "player.js":
        headers |= _ANY_FRONT_END
    # Without a time, so that the same file is the same bytes at each start.
    packed = gzip.compress(body, mtime=0)
    return Page(
        Representation("", body, _etag(body, headers)),
        Representation("gzip", packed, _etag(packed, headers))
        if len(packed) < _WORTH_PACKING * len(body)
        else None,
        headers,
    )


def _etag(body: bytes, headers: Mapping[str, str]) -> str:
    """Return a strong validator, of the header fields too: not every browser takes a new policy
    from a 304 (WebKit since 2023)."""
    return f'"{hashlib.sha256(repr(headers).encode() + body).hexdigest()[:16]}"'


def _frame_ancestors(name: str, origins: Sequence[str]) -> str:
    if name != "watch.html":
        return "'none'"
    return " ".join(("'self'", *(o for o in origins if o != "null"))) if origins else "*"
