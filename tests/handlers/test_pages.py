"""The built-in pages, as any HTTP client gets them."""

import gzip
import http.client
import importlib.resources
import json
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from fakes import FakeClock
from harness import RelayProcess
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request

import relayd
from relayd.config import Config
from relayd.handlers.http import Responder
from relayd.handlers.pages import Pages, answer, matches, prefers_gzip
from relayd.session import Registry

WEB = Path(relayd.__file__).parent / "web"

FILES = {
    "/": "index.html",
    "/share": "share.html",
    "/watch/demo": "watch.html",
    **{f"/{file.name}": file.name for file in WEB.iterdir() if file.suffix != ".html"},
}
"""What is at each path."""

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

NOBODY = "'none'"

APP = "https://app.example.org"


@pytest.fixture(scope="module")
def chosen() -> Iterator[RelayProcess]:
    """A relay for the pages of one origin alone."""
    with RelayProcess("--allowed-origins", f"{APP},null") as relay:
        yield relay


def get(relay: RelayProcess, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """Get a path, with header fields named in Python's way."""
    return relay.request("GET", path, {k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize("path", FILES)
def test_files(relay: RelayProcess, path: str) -> None:
    """Every file is served as it is, with its type, and a browser does not guess another one."""
    response, body = get(relay, path)
    assert response.status == 200
    assert body == (WEB / FILES[path]).read_bytes()
    assert response.headers["Content-Type"] == CONTENT_TYPES[Path(FILES[path]).suffix]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["Content-Encoding"] is None


@pytest.mark.parametrize("path", FILES)
def test_gzip(relay: RelayProcess, path: str) -> None:
    """Who accepts gzip gets fewer bytes of the same file, under another ETag."""
    plain, body = get(relay, path)
    response, packed = get(relay, path, Accept_Encoding="br, gzip;q=0.8")
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert response.headers["ETag"] != plain.headers["ETag"]
    assert len(packed) == int(response.headers["Content-Length"]) < len(body)
    assert gzip.decompress(packed) == body


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_not_modified(relay: RelayProcess, coding: str) -> None:
    """Who has the file already gets no bytes; who has it in the other coding does."""
    response, _ = get(relay, "/player.js", Accept_Encoding=coding)
    etag = response.headers["ETag"]
    again, body = get(relay, "/player.js", Accept_Encoding=coding, If_None_Match=f'"x", W/{etag}')
    assert (again.status, body) == (304, b"")
    for name in ("ETag", "Cache-Control", "Vary"):
        assert again.headers[name] == response.headers[name]
    assert "Content-Length" not in again.headers
    other, body = get(relay, "/player.js", Accept_Encoding="*;q=0", If_None_Match='"x"')
    assert other.status == 200
    assert body


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_head(relay: RelayProcess, coding: str) -> None:
    """HEAD gets the header of GET."""
    page, body = get(relay, "/", Accept_Encoding=coding)
    response, nothing = relay.request("HEAD", "/", {"Accept-Encoding": coding})
    assert (response.status, nothing) == (200, b"")
    assert response.headers["Content-Length"] == str(len(body))
    for name in ("ETag", "Content-Encoding", "Content-Type", "Content-Security-Policy"):
        assert response.headers[name] == page.headers[name]


@pytest.mark.parametrize("path", FILES)
def test_other_methods(relay: RelayProcess, path: str) -> None:
    """A page can't be written to."""
    response, _ = relay.request("POST", path, body="x=1")
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/share/", "/watch/demo/", "/watch/a%20b", "/?from=mail", "/share?x", "/watch/demo?x"]
)
def test_paths(relay: RelayProcess, path: str) -> None:
    """A trailing slash and a query string do not matter; any word may be an id."""
    response, body = get(relay, path)
    assert response.status == 200
    assert b"<html" in body


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/watch.html",
        "/watch",
        "/watch/",
        "/watch/a/b",
        "/web/player.js",
        "/../cli.py",
        "/%2e%2e/cli.py",
        "/player.js/x",
        "//player.js",
        "/favicon.ico",
    ],
)
def test_nothing_else(relay: RelayProcess, path: str) -> None:
    """A page has one address, and no other file has any."""
    response, _ = get(relay, path)
    assert response.status == 404


@pytest.mark.parametrize("path", ["/", "/share", "/watch/demo"])
def test_policy(relay: RelayProcess, path: str) -> None:
    """A page runs its own scripts and talks to its own server alone; only /share can capture."""
    response, _ = get(relay, path)
    policy = response.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'"} <= set(policy)
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert f"frame-ancestors {'*' if path.startswith('/watch') else NOBODY}" in policy
    allowed = "(self)" if path == "/share" else "()"
    features = response.headers["Permissions-Policy"].split(", ")
    assert {f"camera={allowed}", f"display-capture={allowed}", "microphone=()"} <= set(features)


def test_player_is_for_everybody(relay: RelayProcess) -> None:
    """Any front end may load the player, and nothing else."""
    for path in FILES:
        response, _ = get(relay, path)
        is_player = path == "/player.js"
        assert response.headers["Access-Control-Allow-Origin"] == ("*" if is_player else None)
        sharing = "cross-origin" if is_player else "same-origin"
        assert response.headers["Cross-Origin-Resource-Policy"] == sharing


def test_off(start_relay: Callable[..., RelayProcess]) -> None:
    """Without pages there is nothing at their paths; the health checks of `OPTIONS /` go on."""
    relay = start_relay("--pages", "off")
    for path in FILES:
        response, _ = get(relay, path)
        assert response.status == 404
    assert json.loads(relay.request("OPTIONS", "/")[1])["status"] == "ok"
    assert relay.health()["status"] == "ok"


@pytest.mark.parametrize(("draining", "full"), [(True, False), (False, True)])
def test_busy(draining: bool, full: bool) -> None:
    """Pages are there while the relay is full or about to stop: they say what goes on."""
    config = Config()
    responder = Responder(config, Registry(config, FakeClock()))
    request = Request("/watch/demo", Headers())
    response = responder.answer(request, draining=draining, full=full)
    assert response is not None
    assert response.status_code == 200


def test_size(relay: RelayProcess) -> None:
    """The pages, plain and packed, take little memory."""
    codings = ("identity", "gzip")
    sizes = [len(get(relay, path, Accept_Encoding=c)[1]) for path in FILES for c in codings]
    assert sum(sizes) < 256 * 1024


def test_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the folder just the files are read, no hidden ones; they are packed where that pays."""
    web = tmp_path / "web"
    (web / "folder.js").mkdir(parents=True)
    (web / "short.js").write_text("1;\n")
    (web / "long.js").write_text("1;\n" * 100)
    (web / ".#long.js").symlink_to("nowhere")  # as editors leave them
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    pages = Pages()
    assert pages.find("/folder.js") is None
    assert pages.find("/.#long.js") is None
    for path, coding in (("/short.js", None), ("/long.js", "gzip")):
        page = pages.find(path)
        assert page is not None
        response = answer(page, Request(path, Headers({"Accept-Encoding": "gzip"})))
        assert response.headers.get("Content-Encoding") == coding


def test_packaged() -> None:
    """Every file is part of the package that is installed."""
    setup = (WEB.parents[1] / "setup.cfg").read_text()
    patterns = setup.partition("\nrelayd =\n")[2].partition("\n\n")[0].split()
    for file in WEB.iterdir():
        assert any(fnmatch(f"web/{file.name}", pattern) for pattern in patterns), file.name


@pytest.mark.parametrize("path", ["/ws/stream", "/ws/view/demo"])
def test_origins(chosen: RelayProcess, path: str) -> None:
    """A page of another origin gets no WebSocket; those allowed, and apps, which send none, do."""
    for origin in ("https://evil.example.org", f"http://127.0.0.1:{chosen.port}", f"{APP}:444"):
        with pytest.raises(InvalidStatus) as refused, chosen.connect(path, origin=origin):
            pass
        response = refused.value.response
        assert response.status_code == 403
        assert response.body is not None
        assert origin in response.body.decode()
        chosen.log.wait_for(f"origin .*{origin}")
    for origin in (APP, APP.upper(), "null", None):
        with chosen.connect(path, origin=origin) as client:
            assert client.response.status_code == 101


@pytest.mark.parametrize("path", ["/ws/stream", "/ws/view/demo"])
def test_any_origin(relay: RelayProcess, path: str) -> None:
    """By default pages of any origin may view and stream."""
    with relay.connect(path, origin="https://anybody.example.org") as client:
        assert client.response.status_code == 101


def test_many_origins(chosen: RelayProcess) -> None:
    """A handshake that names two origins is refused, even if each of them is allowed."""
    for origins in ([("Origin", APP), ("Origin", "null")], [("Origin", f"{APP}, null")]):
        with (
            pytest.raises(InvalidStatus) as refused,
            chosen.connect("/ws/stream", additional_headers=origins),
        ):
            pass
        assert refused.value.response.status_code in (400, 403)


def test_strange_origin(chosen: RelayProcess) -> None:
    """An origin can't fill the log, nor write on the operator's terminal."""
    origin = "\x9b2J" + "x" * 5000
    with pytest.raises(InvalidStatus), chosen.connect("/ws/stream", origin=origin):
        pass
    (line,) = chosen.log.wait_for(r".*origin '\\x9b2Jxxx.*")
    assert len(line[0]) < 500


def test_frames_follow_origins(chosen: RelayProcess) -> None:
    """/watch may be framed by the pages that may have viewers."""
    response, _ = get(chosen, "/watch/demo")
    assert f"frame-ancestors 'self' {APP}" in response.headers["Content-Security-Policy"]
    assert "null" not in response.headers["Content-Security-Policy"]


def test_etag_follows_policy(relay: RelayProcess, chosen: RelayProcess) -> None:
    """A page under another policy is got again, though its bytes are the same."""
    for coding in ("gzip", "identity"):
        (loose, body), (strict, same) = (
            get(r, "/watch/demo", Accept_Encoding=coding) for r in (relay, chosen)
        )
        assert body == same
        assert loose.headers["ETag"] != strict.headers["ETag"]
        unchanged, _ = get(relay, "/share", Accept_Encoding=coding)
        again, _ = get(chosen, "/share", Accept_Encoding=coding)
        assert unchanged.headers["ETag"] == again.headers["ETag"]


@pytest.mark.parametrize(
    ("accepted", "is_gzip"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("*", True),
        ("x-gzip", True),
        ("gzip ; q=0.001", True),
        ("gzip;q=0.5, identity;q=0", True),
        ("gzip, identity", True),
        ("gzip, *;q=0", True),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=0.5, *", False),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("gzip;q=x", False),
        ("gzipped", False),
    ],
)
def test_prefers_gzip(accepted: str, is_gzip: bool) -> None:
    """gzip is taken where Accept-Encoding, as RFC 9110 section 12.5.3 has it, likes it best."""
    assert prefers_gzip(accepted) is is_gzip


TAGS = st.from_regex(r'"[!#-~]*"', fullmatch=True)


@given(st.lists(st.tuples(st.sampled_from(["", "W/"]), TAGS), min_size=1), TAGS)
def test_matches(tags: list[tuple[str, str]], etag: str) -> None:
    """If-None-Match is a list, weak or not; what is between the quotes may have commas."""
    known = [tag for _, tag in tags]
    condition = ", ".join(weak + tag for weak, tag in tags)
    assert matches(condition, etag) is (etag in known)
    assert matches(condition, known[-1])


@given(st.text())
def test_strange_headers(text: str) -> None:
    """No value of a request's header is an error."""
    assert prefers_gzip(text) in (True, False)
    assert matches(text, '"etag"') == (text.strip() == "*" or '"etag"' in text)
