"""The units: systemd knows every key of them, and what it thinks of their security."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import PATIENCE, require_tool

UNITS = Path(__file__).parents[2] / "systemd"

EVERY_UNIT = ["relayd.service", "relayd.socket", "relayd-admin.socket"]

NEW_SINCE = {"restart.conf": 254}
"""The version of systemd that a drop-in needs."""


def analyze(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on the units in a folder."""
    command = [require_tool("systemd-analyze"), *options]
    env = {"SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_COLORS": "0"}  # with the colon: and its own
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units; the program is one that exists, as systemd wants to see it."""
    for name in EVERY_UNIT:
        shutil.copy(UNITS / name, tmp_path)
    service = tmp_path / "relayd.service"
    text, count = re.subn("(?m)^ExecStart=.*$", "ExecStart=/bin/sh", service.read_text())
    assert count == 1
    service.write_text(text)
    return tmp_path


def add_drop_in(units: Path, name: str) -> None:
    """Put a drop-in where systemd looks for it."""
    folder = units / "relayd.service.d"
    folder.mkdir()
    shutil.copy(UNITS / name, folder)


@pytest.mark.parametrize("name", EVERY_UNIT)
def test_keys(units: Path, name: str) -> None:
    """systemd knows every key."""
    result = analyze(units, "verify", "--recursive-errors=no", name)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", sorted(path.name for path in UNITS.glob("*.conf")))
def test_drop_ins(units: Path, name: str) -> None:
    """systemd knows every key of what may be added, if it is new enough."""
    version = re.search(r"\d+", analyze(units, "--version").stdout)
    assert version is not None
    if int(version[0]) < NEW_SINCE.get(name, 0):
        pytest.skip(f"needs systemd {NEW_SINCE[name]}")
    add_drop_in(units, name)
    result = analyze(units, "verify", "--recursive-errors=no", "relayd.service")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("drop_in", "exposure"), [(None, 0.3), ("tls.conf", 0.3), ("network.conf", 1.1)]
)
def test_exposure(units: Path, drop_in: str | None, exposure: float) -> None:
    """What a relayd that has been taken over could do is next to nothing."""
    if drop_in is not None:
        add_drop_in(units, drop_in)
    threshold = f"--threshold={round(exposure * 10)}"
    result = analyze(units, "security", "--offline=true", threshold, "relayd.service")
    assert result.returncode == 0, result.stdout
