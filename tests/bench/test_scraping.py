"""Smoke test of the measurement of what scraping costs: it works, whatever the figures say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import PATIENCE

RUN = [sys.executable, str(Path(__file__).with_name("scraping.py"))]
SMALL = ["--regime", "2x2-1k", "--blocks", "2", "--seconds", "1"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")


def run(*options: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run the measurement."""
    return subprocess.run(
        [*RUN, *options],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
        env=os.environ | env,
    )


def test_figures() -> None:
    """A ratio, of a load of which nothing was lost, with a scrape each second of one block."""
    result = run(*SMALL)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^ratio \d+\.\d{3}, ", result.stdout, re.MULTILINE)
    scrapes = re.search(r"^([12]) scrapes, .*; 100 % delivered", result.stdout, re.MULTILINE)
    assert scrapes, result.stdout


def test_without_metrics(tmp_path: Path) -> None:
    """A relayd without its extra is a line that says what to install."""
    hide = "import sys; sys.modules['prometheus_client'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    result = run(*SMALL, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "scraping.py: Install relayd with its extra: relayd[metrics]."
    )


def test_bad_usage() -> None:
    """Blocks without a counterpart are bad usage."""
    result = run("--blocks", "3")
    assert result.returncode == 2
    assert "blocks come in pairs" in result.stderr
