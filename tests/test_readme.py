"""What the README says is true."""

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from browser import serve_html, wait_for_state
from harness import PATIENCE, LineReader, RelayProcess, open_chromium, receive, require_tool

from relayd.config import SETTINGS, Config
from relayd.ctl.pattern import HEIGHT, WIDTH, images
from relayd.protocol import SIGNALLING_LIMIT, Refusal

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def rows(header: str) -> list[list[str]]:
    """Return the cells of the table with this header."""
    _, _, table = README.partition(f"\n{header}\n")
    lines = table.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_settings_table() -> None:
    """The settings table is the program's."""
    assert rows("| variable | option | default | meaning |") == [
        [s.variable, f"`{s.option}`", s.default, s.help] for s in SETTINGS
    ]


def test_error_table() -> None:
    """The table of refusals has every message and its close code."""
    told = [
        (message, int(code))
        for cell, code in rows("| message | close code |")
        for message in re.findall("`([a-z ]+)`", cell.split("(")[0])
    ]
    assert sorted(told) == sorted((r.message, int(r.code)) for r in Refusal.__subclasses__())
    assert f"text over {SIGNALLING_LIMIT // 1024} KiB | 1009" in README


@pytest.mark.parametrize(
    ("module", "command", "options"),
    [("relayd", "", text) for text in re.findall(r"\brelayd((?: --[a-z][^|`&]*)+)", README)]
    + [("relayd.ctl", *found) for found in re.findall(r"\brelayctl ([a-z]+)([^|`&\n]*)", README)],
)
def test_options_exist(module: str, command: str, options: str) -> None:
    """Every command and option that the README shows is one."""
    line = [sys.executable, "-m", module, *command.split(), "--help"]
    shown = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=True)
    for option in re.findall(r"(?<= )--?[a-z-]+", options):
        assert re.search(rf"{option}\b", shown.stdout)


def test_versions() -> None:
    """The README names the versions of Python that the package is for."""
    setup = (ROOT / "setup.cfg").read_text()
    versions = re.findall(r"Programming Language :: Python :: (3\.\d+)", setup)
    assert f"Python {versions[0]} to {versions[-1]}" in README
    assert f"python_requires = >={versions[0]}" in setup


def test_python_streamer(relay: RelayProcess, tmp_path: Path) -> None:
    """The streamer of the README, as it stands there, streams the files that it is given."""
    (script,) = blocks("python")
    program = tmp_path / "streamer.py"
    program.write_text(script.replace("ws://localhost:8080", relay.url))
    pictures = [tmp_path / f"{n}.png" for n in range(3)]
    for picture, png in zip(pictures, images(), strict=False):
        picture.write_bytes(png)
    # A pipe that the test fills: the streamer waits for its first picture until somebody watches.
    gate = tmp_path / "gate.png"
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(gate)
    with subprocess.Popen(
        [sys.executable, program, gate, *pictures[1:]], stdout=subprocess.PIPE, text=True
    ) as streamer:
        assert streamer.stdout is not None
        assert streamer.stdout.readline() == "streaming as demo\n"
        with relay.view("demo") as viewer:
            gate.write_bytes(pictures[0].read_bytes())
            received = [viewer.recv() for _ in pictures]
            assert received == [picture.read_bytes() for picture in pictures]
            assert receive(viewer)["type"] == "stream_ended"
        assert streamer.wait(PATIENCE) == 0


def test_browser_viewer(relay: RelayProcess, tmp_path: Path) -> None:
    """The page of the README, as it stands there, shows pictures and says how the stream ends."""
    (page_source,) = (block for block in blocks("html") if block.startswith("<!doctype"))
    file = tmp_path / "viewer.html"
    file.write_text(page_source.replace("ws://localhost:8080", relay.url))
    with open_chromium() as browser, browser.new_page() as page:
        with relay.stream("demo") as (streamer, _):
            page.goto(file.as_uri())
            page.wait_for_function("state.textContent === 'subscribed'")
            for png in itertools.islice(images(), 3):
                streamer.send(png)
            page.wait_for_function(f"canvas.width === {WIDTH} && canvas.height === {HEIGHT}")
            colours = "new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, 1).data)"
            assert page.evaluate(f"{colours}.size") > 1
        page.wait_for_function("state.textContent === 'stream_ended (closed: 1000)'")
        page.reload()
        page.wait_for_function("state.textContent === 'stream not found (closed: 4404)'")


def test_player(relay: RelayProcess) -> None:
    """The lines of the README that embed the player, as they stand there, show a stream."""
    (lines,) = (block for block in blocks("html") if block.startswith("<script"))
    page_source = lines.replace("localhost:8080", f"127.0.0.1:{relay.port}")
    with (
        relay.stream("demo") as (streamer, _),
        serve_html(f"<!doctype html><title>Elsewhere</title>{page_source}") as url,
        open_chromium() as browser,
        browser.new_page() as page,
    ):
        page.goto(url)
        wait_for_state(page, "waiting")
        streamer.send(next(images()))
        wait_for_state(page, "playing")
        for name in rows("| attribute, property | what |"):
            for term in re.findall("`([a-z]+)`", name[0]):
                assert page.evaluate(f"'{term}' in document.querySelector('relayd-player')")
        told = page.evaluate("Object.keys(document.querySelector('relayd-player').statistics)")
    (figures,) = (what for name, what in rows("| attribute, property | what |") if "stati" in name)
    assert sorted(re.findall("`([a-z]+)`", figures)) == sorted(told)


def test_unit() -> None:
    """The systemd unit starts the program where the README installs it, with valid options."""
    unit = (ROOT / "systemd" / "relayd.service").read_text()
    (command,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
    program, *options = command.split()
    (service,) = (block for block in blocks("sh") if "systemctl" in block)
    folder = Path(program).parents[1]
    assert f"python3 -m venv {folder}" in service
    assert f"{folder}/bin/pip install" in service
    check = [sys.executable, "-m", "relayd", *options, "--check"]
    assert subprocess.run(check, capture_output=True, timeout=PATIENCE, check=False).returncode == 0
    (env_file,) = re.findall("^EnvironmentFile=-(.*)$", unit, re.MULTILINE)
    assert env_file in README
    (stop,) = re.findall("^TimeoutStopSec=(.*)$", unit, re.MULTILINE)
    assert float(stop) > Config().drain_timeout


def test_set_up_and_run(tmp_path: Path) -> None:
    """The command that sets up and runs the relay works in an empty directory, and so does what
    the README then shows."""
    if os.environ.get("CI") != "true":
        pytest.skip("runs in CI: it installs packages from the network")
    git = require_tool("git")
    assert (
        subprocess.run([git, "-C", ROOT, "status"], capture_output=True, check=False).returncode
        == 0
    )
    (set_up,) = (block for block in blocks("sh") if "relayd --port 8080" in block)
    (try_out,) = (block for block in blocks("sh") if "publish --test-pattern" in block)
    publish, watch = try_out.splitlines()
    with ExitStack() as stack:
        env = {"RELAYD": str(ROOT)}
        command = set_up.replace("--port 8080", "--host 127.0.0.1 --port 0")
        relay = stack.enter_context(shell(command, tmp_path, env))
        log = LineReader(relay.stderr)
        (listening,) = log.wait_for(r"listening on (127\.0\.0\.1:\d+)", patience=120)
        env = {"RELAYD_SERVER": listening[1]}
        stack.enter_context(shell(publish.removesuffix("&"), tmp_path / "relayd", env))
        log.wait_for("streamer demo .*: registered")
        viewer = stack.enter_context(shell(f"{watch} -o -", tmp_path / "relayd", env))
        assert viewer.stdout is not None
        assert viewer.stdout.buffer.read(8) == b"\x89PNG\r\n\x1a\n"


@contextmanager
def shell(command: str, folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command line in a folder; end it and all that it started."""
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
