"""What a relay asks of its own process."""

import subprocess
import sys

from harness import PATIENCE

RUN_AND_STOP = """
import asyncio
from relayd.config import Config
from relayd.server import Relay

async def run_and_stop():
    relay = Relay(Config(host="127.0.0.1", port=0))
    relay.stop()
    await relay.run()

asyncio.run(run_and_stop())
"""


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script in a process of its own, which must end well."""
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True
    )


def test_file_limit() -> None:
    """The soft limit of open files is raised to the hard one; a hard one too low is a warning."""
    limit = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (200, 500));"
    log = "import logging; logging.basicConfig()"
    result = run_script(limit + log + RUN_AND_STOP + "print(r.getrlimit(r.RLIMIT_NOFILE))")
    assert result.stdout == "(500, 500)\n"
    assert "MAX_CONNECTIONS needs 1264 open files, the limit is 500" in result.stderr


def test_full_collections_are_rare() -> None:
    """What lives from the start on is never collected, and full collections are rare."""
    show = "import gc; print(gc.get_freeze_count() > 1000, gc.get_threshold()[2])"
    result = run_script(RUN_AND_STOP + show)
    assert result.stdout == "True 1000\n"
