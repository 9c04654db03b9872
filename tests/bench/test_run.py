"""Smoke test of the comparison with the peers: it works, whatever the figures say."""

import subprocess
import sys
from pathlib import Path

import pytest
from harness import PATIENCE, require_tool

RUN = [sys.executable, str(Path(__file__).with_name("run.py"))]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the floor needs epoll")


def run(*options: str) -> "subprocess.CompletedProcess[str]":
    """Run the comparison."""
    return subprocess.run(
        [*RUN, *options], capture_output=True, text=True, timeout=4 * PATIENCE, check=False
    )


def test_table() -> None:
    """One regime against two peers: a table with a row for each, and nothing lost."""
    require_tool("cc")
    short = ["--regime", "10x2-4k", "--pairs", "1", "--seconds", "0.5", "--warmup", "0.1"]
    result = run(*short, "--peers", "floor,naive")
    assert result.returncode == 0, result.stderr
    headings, _, *rows = [line.split(" | ") for line in result.stdout.splitlines() if "|" in line]
    assert [row[:2] for row in rows] == [["| 10×2, 4 KiB", "floor"], ["| 10×2, 4 KiB", "naive"]]
    delivered = headings.index("delivered")
    assert [row[delivered] for row in rows] == ["100 % / 100 %"] * 2
    assert {len(row) for row in rows} == {len(headings)}
    assert "Python" in result.stdout.splitlines()[-1]


def test_peer_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is not installed is a line that says so."""
    monkeypatch.setenv("PATH", "")
    result = run("--regime", "1x1-1k", "50x10-mixed", "--peers", "floor,ws")
    assert result.returncode == 0, result.stderr
    for title in ("1×1, 1 KiB", "50×10, mixed"):
        assert f"| {title} | floor | cc is not installed |" in result.stdout
        assert f"| {title} | ws | node is not installed |" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--regime", "10x2"], "no such regime: 10x2; they look like 50x10-32k"),
        (["--regime", "0x2-4k"], "no such regime: 0x2-4k"),
        (["--peers", "floor,apache"], "no such peer: apache"),
    ],
)
def test_bad_usage(options: list[str], message: str) -> None:
    """A name that is none is bad usage."""
    result = run(*options)
    assert result.returncode == 2
    assert message in result.stderr
