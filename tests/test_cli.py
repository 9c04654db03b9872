"""The `relayd` command."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from harness import PATIENCE, RelayProcess, address
from hypothesis import given
from hypothesis import strategies as st

import relayd
from relayd.cli import JournalFormatter, JsonFormatter, TextFormatter
from relayd.config import SETTINGS


def run_relayd(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run relayd to its end, which must come by itself."""
    return subprocess.run(
        [sys.executable, "-m", "relayd", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | env,
    )


def test_help() -> None:
    """--help shows every option with its default."""
    result = run_relayd("--help", COLUMNS="100")
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    for setting in SETTINGS:
        assert f"{setting.option} {setting.kind.metavar} {setting.help} [{setting.default}]" in text


def test_version() -> None:
    """--version shows the version and nothing else."""
    result = run_relayd("--version")
    assert (result.returncode, result.stdout) == (0, f"relayd {relayd.__version__}\n")


def test_check() -> None:
    """--check prints every effective setting, in a form that an environment file takes."""
    result = run_relayd("--check", "--max-streams", "7", "--ping-interval", "1500ms")
    assert result.returncode == 0
    shown = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert list(shown) == [setting.variable for setting in SETTINGS]
    assert shown["MAX_STREAMS"] == "7"
    assert shown["MAX_CONNECTIONS"] == "177"
    assert shown["PING_INTERVAL"] == "1.5s"
    again = run_relayd("--check", **shown)
    assert again.stdout == result.stdout


def test_option_wins() -> None:
    """A setting comes from its option, else from its variable, else it has its default."""
    result = run_relayd("--check", "--port", "1", PORT="2", MAX_STREAMS="3", LOG_LEVEL="")
    assert "PORT=1\nMAX_STREAMS=3\n" in result.stdout
    assert "LOG_LEVEL=info\n" in result.stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--port", "http"], "PORT: 'http' is not allowed; give a whole number from 0 to 65535"),
        (["--check", "--log-format", "xml"], "LOG_FORMAT: 'xml' is not allowed; give text or json"),
        (["--prot", "80"], "No such option '--prot'. (Did you mean"),
        (["--port"], "Option '--port' requires an argument."),
        (["8080"], "Got unexpected extra argument (8080)"),
    ],
)
def test_bad_usage(options: list[str], complaint: str) -> None:
    """Bad usage is one line that says what is wrong, and exit code 2."""
    result = run_relayd(*options)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("relayd: ")
    assert complaint in result.stderr.replace('"', "'")
    assert result.stderr.count("\n") == 1


def test_bad_environment() -> None:
    """A bad value in the environment is told like one of an option."""
    result = run_relayd(MAX_FRAME_SIZE="huge")
    assert result.returncode == 2
    assert result.stderr.startswith("relayd: MAX_FRAME_SIZE: 'huge' is not allowed; give bytes or")
    assert result.stderr.count("\n") == 1


def test_text_log(start_relay: Callable[..., RelayProcess]) -> None:
    """A log line is time, level, who and what."""
    relay = start_relay()
    with relay.stream("x") as (streamer, _):
        who = address(streamer)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    relay.log.wait_for(f"^{time} info streamer x {re.escape(who)}: registered$")


def test_json_log(start_relay: Callable[..., RelayProcess]) -> None:
    """With LOG_FORMAT=json every line is an object that says who."""
    relay = start_relay(env={"LOG_FORMAT": "json"})
    with relay.stream("x") as (streamer, _):
        who = address(streamer)
    relay.log.wait_for("left after")
    records = [json.loads(line) for line in relay.log.lines]
    (registered,) = [record for record in records if record["message"] == "registered"]
    assert re.fullmatch(r"[-\d]{10}T[:\d]{8}\.\d{3}Z", registered.pop("time"))
    assert registered == {
        "level": "info",
        "role": "streamer",
        "stream": "x",
        "peer": who,
        "message": "registered",
    }


def test_log_level(start_relay: Callable[..., RelayProcess]) -> None:
    """LOG_LEVEL hides what is less important."""
    result = run_relayd("--log-level", "error", "--host", "192.0.2.1")
    assert result.stderr.count("\n") == 1
    relay = start_relay("--log-level", "debug")
    with relay.stream("x") as (streamer, _):
        streamer.send(b"secret picture")
    relay.log.wait_for("left after")
    assert not relay.log.matching("secret")


@given(st.text(), st.text())
def test_json_is_one_line(message: str, stream_id: str) -> None:
    """A JSON record is one line, whatever it holds."""
    record = logging.LogRecord("relayd", logging.INFO, "", 0, "%s", (message,), None)
    record.stream = stream_id
    line = JsonFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == message


def test_traceback() -> None:
    """A bug is logged with its traceback, in both formats."""
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "bug", (), sys.exc_info())
    assert TextFormatter().format(record).endswith("\nZeroDivisionError")
    assert json.loads(JsonFormatter().format(record))["traceback"].endswith("\nZeroDivisionError")


def test_journal() -> None:
    """In the journal every line begins with its priority; time and level are the journal's own."""
    record = logging.LogRecord("relayd", logging.ERROR, "", 0, "lost\nit", None, None)
    record.role = "viewer"
    formatter = JournalFormatter(TextFormatter(bare=True))
    assert formatter.format(record) == r"<3>viewer: lost\nit"
    for level, priority in ((logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4)):
        record.levelno = level
        assert formatter.format(record).startswith(f"<{priority}>")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        record.exc_info = sys.exc_info()
    lines = formatter.format(record).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<4>") for line in lines)
