"""The house: which room may import which, and that every room has its tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import relayd

ROOT = Path(relayd.__file__).parent
TESTS = Path(__file__).parent

ROOMS = {
    "protocol": set(),
    "config": set(),
    "counters": set(),
    "relay": {"protocol", "counters"},
    "feedback": {"protocol"},
    "session": {"feedback", "relay", "protocol", "config", "counters"},
    "framing": {"relay"},
    "sendqueue": set(),
    "throttle": set(),
    "connection": {"framing", "sendqueue", "throttle", "relay", "protocol"},
    "handlers": {"session", "connection", "relay", "protocol", "config"},
    "forwarded": {"config"},
    "rates": set(),
    "metrics": {"session", "relay", "protocol", "config", "counters", "tls"},
    "admin": {
        *{"metrics", "rates", "handlers", "session", "relay", "protocol", "config", "counters"},
        "tls",
    },
    "systemd": set(),
    "tls": set(),
    "process": set(),
    "server": {
        *{"admin", "handlers", "session", "connection", "relay", "protocol", "config"},
        *{"forwarded", "process", "systemd", "tls"},
    },
    "cli": {"config", "server", "systemd"},
    "__main__": {"cli"},
    "ctl": {"protocol"},
}
"""What each room may import of relayd, beside itself. Arrows go down only."""

NO_IO = (
    *("protocol", "config", "counters", "relay", "feedback", "session", "throttle"),
    *("forwarded", "rates"),
)
"""Rooms that know neither an event loop nor a socket."""

MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py")


def room(path: Path) -> str:
    """Return the room of a module: handlers/view.py is in handlers."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything that a module imports."""
    package = ["relayd", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{name}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_layers(path: Path) -> None:
    """A module imports its own room and what its room may import."""
    allowed = ROOMS[room(path)] | {room(path), "__version__"}
    for name in imports(path):
        package, *rest = name.split(".")
        if package == "relayd" and rest:
            assert rest[0] in allowed, name
        if room(path) in NO_IO:
            assert package not in {"asyncio", "socket", "websockets", "uvloop", "click"}, name


def test_table_is_not_stale() -> None:
    """The table names just the rooms that there are."""
    assert {room(path) for path in MODULES} == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_mirror_modules(path: Path) -> None:
    """Every module has a test file of its name."""
    if path.name != "__main__.py":
        relative = path.relative_to(ROOT)
        assert (TESTS / relative.with_name(f"test_{relative.name}")).is_file()


def test_web_is_no_package() -> None:
    """The pages are files side by side, none of them Python."""
    files = list((ROOT / "web").iterdir())
    assert files
    for file in files:
        assert file.is_file(), file
        assert file.suffix in {".html", ".css", ".js", ".svg"}, file


def test_top_level() -> None:
    """The top level of the repository is a short list."""
    visible = {path.name for path in ROOT.parent.iterdir() if not path.name.startswith(".")}
    agreed = {"setup.cfg", "pyproject.toml", "relayd", "tests", "systemd", "README.md", "LICENSE"}
    made_by_tools = {"build", "dist", "relayd.egg-info"}
    assert agreed <= visible
    assert visible - agreed <= made_by_tools
