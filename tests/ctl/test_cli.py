"""Tests of the command line."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from harness import PATIENCE

import relayd
from relayd.ctl import cli, source

Start = Callable[..., "subprocess.Popen[bytes]"]


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Run relayctl in this process; return exit code, output and error output."""
    with pytest.raises(SystemExit) as caught:
        cli.main(args)
    assert isinstance(caught.value.code, int)
    return caught.value.code, *capsys.readouterr()


def test_version(relayctl: Start) -> None:
    """The version is that of relayd, and python -m relayd.ctl is relayctl."""
    output, errors = relayctl("--version").communicate(timeout=PATIENCE)
    assert (output.decode(), errors) == (f"relayctl {relayd.__version__}\n", b"")


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    """Without a command the help is shown, with the commands and an example."""
    code, output, errors = run(capsys, *args)
    assert (code, errors) == (0, "")
    assert "\n  relayctl publish --test-pattern --id demo\n" in output.replace("    ", "  ")
    assert {"publish", "watch", "bench", "streams", "top", "kick"} == set(cli.relayctl.commands)
    for command in cli.relayctl.commands.values():
        assert command.short_help is not None
        assert command.short_help in output


@pytest.mark.parametrize(
    ("command", "where"),
    [(command, "RELAYD_SERVER") for command in ("publish", "watch", "bench")]
    + [(command, "RELAYD_ADMIN") for command in ("streams", "top", "kick")],
)
def test_help_of_a_command(capsys: pytest.CaptureFixture[str], command: str, where: str) -> None:
    """A command's help has examples, one a line, and fits a terminal of 80 columns without them."""
    code, output, errors = run(capsys, command, "--help")
    assert (code, errors) == (0, "")
    examples = output.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) >= 3
    assert all("relayctl " in example for example in examples)
    others = [line for line in output.splitlines() if line not in examples]
    assert max(map(len, others)) <= 80
    assert f"{where}; default:" in " ".join(output.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sing"], "no such command 'sing'"),
        (["--loud"], "no such option '--loud'"),
        (["publish"], "name one: a FILE, - for standard input, or --test-pattern"),
        (["publish", "x", "--test-pattern"], "name one: a FILE, - for standard input, or"),
        (["publish", "x", "--fps", "0"], "invalid value for '--fps': 0.0 is not over 0 and up to"),
        (["publish", "x", "--fps", "nan"], "invalid value for '--fps': nan is not over 0"),
        (["publish", "x", "--fps", "1001"], "1001.0 is not over 0 and up to 1000"),
        (["publish", "x", "--fps", "fast"], "'fast' is not a valid float"),
        (["publish", "x", "--id", "a b"], "'a b' is not 1 to 64 letters, digits, - and _"),
        (["publish", os.devnull, "--loop"], "--loop needs a file: a pipe can't be read again"),
        (["bench", "--size", "4KiB", "--mixed"], "name one: --size or --mixed"),
        (["bench", "--size", "7"], "'7' is not a size from 8 to 1024MiB, such as 32KiB"),
        (["bench", "--size", "4kB"], "'4kB' is not a size from 8 to 1024MiB"),
        (["bench", "--size", "2000MiB"], "'2000MiB' is not a size from 8 to 1024MiB"),
        (["bench", "--size", "big"], "'big' is not a size from 8 to 1024MiB"),
        (["bench", "--streams", "0"], "invalid value for '--streams': 0 is not in the range 1<=x"),
        (["bench", "--viewers", "0"], "invalid value for '--viewers': 0 is not in the range 1<=x"),
        (["bench", "--duration", "0"], "0.0 is not over 0 and up to 86400"),
        (["bench", "--fps", "0"], "invalid value for '--fps': 0.0 is not over 0 and up to"),
        (["streams", "a b"], "'a b' is not 1 to 64 letters, digits, - and _"),
        (["streams", "--admin", "https://x:1"], "'https://x:1' is not where an operator's port is"),
        (["top", "--interval", "0"], "0.0 is not from 0.1 to 86400"),
        (["top", "-n", "0"], "invalid value for '-n' / '--count': 0 is not in the range x>=1"),
        (["kick"], "name one: a stream's ID, or --viewer N"),
        (["kick", "lobby", "--viewer", "1"], "name one: a stream's ID, or --viewer N"),
        (["kick", "--viewer", "lobby"], "'lobby' is not a valid integer range"),
        (["watch"], "missing argument 'ID'"),
        (["watch", "../health"], "'../health' is not 1 to 64 letters, digits, - and _"),
        (["watch", "x", "--server", "ftp://x"], "'ftp://x' is not the address of a server: it mu"),
    ],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], args: list[str], message: str) -> None:
    """Bad usage is one line and exit code 2."""
    code, output, errors = run(capsys, *args)
    assert (code, output) == (2, "")
    assert errors.startswith("relayctl: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is not there is one line and exit code 1."""
    code, output, errors = run(capsys, "watch", "x", "--server", "127.0.0.1:1")
    assert (code, output) == (1, "")
    expected = "cannot connect to ws://127.0.0.1:1: connection refused; is relayd running there?"
    assert errors == f"relayctl: {expected} (--server)\n"


def test_interrupted_early(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C before there is a connection is a normal end."""

    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(source, "find", interrupt)
    assert run(capsys, "publish", "x")[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["publish", "-"], "standard input is a terminal: pipe the video into relayctl"),
        (["watch", "x", "-o", "-"], "standard output is a terminal: pipe the video, say to"),
    ],
)
def test_no_video_from_or_to_a_terminal(
    relayctl: Start, terminal: tuple[int, object], args: list[str], message: str
) -> None:
    """Video is neither read from a terminal nor written to one."""
    program, _ = terminal
    process = relayctl(*args, stdin=program, stdout=program)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert message in errors.decode()
