"""The command line of relayctl: options, exit codes, one line for every error."""

import asyncio
import re
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn

import click

from .. import __version__, protocol
from . import client, pattern, source
from .bench import bench as bench_server
from .cutting import MediaError
from .link import STAMP_SIZE
from .load import Load
from .pace import Schedule
from .publish import publish as publish_stream
from .source import STDIN
from .tasks import until_interrupted
from .watch import STDOUT
from .watch import watch as watch_stream

DEFAULT_FPS = 30.0
MAX_FPS = 1000.0

DEFAULT_SIZE = 32 * 2**10
MAX_SIZE = 2**30
MAX_DURATION = 24 * 3600.0


def _server(ctx: click.Context, param: click.Parameter, value: str) -> str:
    try:
        return client.server_url(value)
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} is not the address of a server: {exc}") from None


def _stream_id(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else protocol.check_stream_id(value)
    except protocol.InvalidStreamId:
        raise click.BadParameter(f"{value!r} is not 1 to 64 letters, digits, - and _") from None


def _fps(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is None or 0 < value <= MAX_FPS:
        return value
    raise click.BadParameter(f"{value} is not over 0 and up to {MAX_FPS:.0f}")


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    units = {"": 1, "kib": 2**10, "mib": 2**20}
    match = re.fullmatch(r"(\d{1,10})\s*([A-Za-z]*)", value)
    size = int(match[1]) * units.get(match[2].lower(), 0) if match else 0
    if STAMP_SIZE <= size <= MAX_SIZE:
        return size
    raise click.BadParameter(f"{value!r} is not a size from {STAMP_SIZE} to 1024MiB, such as 32KiB")


def _duration(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if 0 < value <= MAX_DURATION:
        return value
    raise click.BadParameter(f"{value} is not over 0 and up to {MAX_DURATION:.0f}")


server_option = click.option(
    "--server",
    metavar="URL",
    callback=_server,
    default=client.DEFAULT_SERVER,
    envvar="RELAYD_SERVER",
    show_default=True,
    show_envvar=True,
    help="The relay: ws://, wss://, http://, https:// or host:port.",
)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="relayctl", message="%(prog)s %(version)s")
@click.pass_context
def relayctl(ctx: click.Context) -> None:
    """Publish live streams to a relayd server, watch them, and measure the server.

    \b
    Try it, with a relayd on this machine:
      relayctl publish --test-pattern --id demo
      relayctl watch demo

    Ctrl-C ends either. On a terminal both show frames and bits per second; in a pipe they say
    nothing but what goes wrong.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@relayctl.command(short_help="Push a video file, a pipe or a test pattern as a live stream.")
@click.argument("file", required=False)
@click.option("--test-pattern", is_flag=True, help="Push a moving picture with a frame counter.")
@server_option
@click.option(
    "--id",
    "stream_id",
    metavar="ID",
    callback=_stream_id,
    help="Stream id.  [default: a random one]",
)
@click.option(
    "--fps",
    type=float,
    metavar="N",
    callback=_fps,
    help=f"Frames per second.  [default: {DEFAULT_FPS:.0f} for a file or the test pattern;"
    " a pipe is sent as it comes]",
)
@click.option("--loop", is_flag=True, help="Start the file again at its end, until Ctrl-C.")
def publish(
    file: str | None,
    test_pattern: bool,
    server: str,
    stream_id: str | None,
    fps: float | None,
    loop: bool,
) -> None:
    """Push FILE, or standard input where FILE is -, as a live stream.

    The video is MJPEG (JPEG images back to back) or H.264 in Annex B format. Every picture becomes
    one message, byte for byte. The stream's id is printed on standard output once the relay has
    registered it, before the input is read; viewers may join from then on.

    A connection that is lost is taken up again, for up to a minute. A file waits meanwhile; of a
    pipe, what comes meanwhile is dropped.

    \b
    Examples:
      relayctl publish --test-pattern
      relayctl publish --loop --fps 25 --id lobby clip.h264
      adb exec-out screenrecord --output-format=h264 - | relayctl publish -
      ffmpeg -f v4l2 -i /dev/video0 -f mjpeg - | relayctl publish -
      ffmpeg -re -i clip.mp4 -c:v copy -bsf:v h264_mp4toannexb -f h264 - | relayctl publish -
    """
    if (file is None) != test_pattern:
        raise click.UsageError("Name one: a FILE, - for standard input, or --test-pattern.")
    if file is None:
        frames, video_format, needs_pace = source.pattern_frames(), pattern.FORMAT, True
    else:
        if file == STDIN and sys.stdin.isatty():
            raise click.UsageError("Standard input is a terminal: pipe the video into relayctl.")
        video = source.find(file)
        if loop and not video.is_file:
            raise click.UsageError("--loop needs a file: a pipe can't be read again.")
        frames, video_format = video.frames(repeat=loop), video.format
        needs_pace = video.is_file
    schedule = Schedule(fps or DEFAULT_FPS) if fps or needs_pace else None
    _run(publish_stream(server, stream_id, video_format, frames, schedule))


@relayctl.command(short_help="Receive a stream; count its frames or write them out.")
@click.argument("stream_id", metavar="ID", callback=_stream_id)
@server_option
@click.option(
    "-o", "--output", metavar="FILE|-", help="Write the frames, back to back, to FILE or a pipe."
)
def watch(stream_id: str, server: str, output: str | None) -> None:
    """Receive the stream ID until it ends.

    The frames are counted, and with -o written out as they come, byte for byte. A terminal also
    shows the lag, by which what arrives is late, and how many frames the relay has skipped so
    that it stays small.

    \b
    Examples:
      relayctl watch demo
      relayctl watch demo -o - | ffplay -
      relayctl watch demo -o - --server wss://relay.example.com > recording.h264
    """
    if output == STDOUT and sys.stdout.isatty():
        raise click.UsageError("Standard output is a terminal: pipe the video, say to ffplay -")
    _run(watch_stream(server, stream_id, output))


@relayctl.command(short_help="Put a load on a server; measure what arrives and what it costs.")
@server_option
@click.option(
    "--streams",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    metavar="N",
    help="Streamers at a time.",
)
@click.option(
    "--viewers",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    metavar="N",
    help="Viewers of each stream.",
)
@click.option(
    "--size",
    metavar="SIZE",
    callback=_size,
    help=f"Size of a frame, in bytes or with KiB or MiB.  [default: {DEFAULT_SIZE // 2**10}KiB]",
)
@click.option(
    "--mixed",
    is_flag=True,
    help="As an encoder does: 100 KiB every 2 seconds, 4 to 12 KiB between.",
)
@click.option(
    "--fps",
    type=float,
    metavar="N",
    callback=_fps,
    default=DEFAULT_FPS,
    show_default=True,
    help="Frames per second of each stream.",
)
@click.option(
    "--duration",
    type=float,
    metavar="SECONDS",
    callback=_duration,
    default=10.0,
    show_default=True,
    help="Time that is measured, after a second to warm up.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    server: str,
    streams: int,
    viewers: int,
    size: int | None,
    mixed: bool,
    fps: float,
    duration: float,
    as_json: bool,
) -> None:
    """Put a load on a server: streams and their viewers, all from here.

    Shows the share of frames that arrived, how many a second, and their latency; of a server on
    this machine also the CPU time and the memory. Ctrl-C ends it early and shows what was
    measured.

    \b
    Examples:
      relayctl bench
      relayctl bench --streams 50 --mixed
      relayctl bench --streams 1 --viewers 1000 --size 4KiB --duration 60 --json
    """
    if mixed and size is not None:
        raise click.UsageError("Name one: --size or --mixed.")
    if not mixed and size is None:
        size = DEFAULT_SIZE
    load = Load(streams=streams, viewers=viewers, size=size, fps=fps, duration=duration)
    bench_server(server, load, as_json=as_json)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run relayctl and exit: 0 after a normal end, 1 when it can't go on, 2 after bad usage."""
    try:
        status = relayctl.main(args, prog_name="relayctl", standalone_mode=False) or 0
    except click.Abort:  # Ctrl-C before there was anything to end.
        status = 0
    except click.ClickException as exc:
        message = exc.format_message().rstrip(".")
        status = _complain(message[:1].lower() + message[1:], exc.exit_code)
    except (client.ClientError, MediaError) as exc:
        status = _complain(str(exc), 1)
    sys.exit(status)


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(until_interrupted(work))


def _complain(message: str, status: int) -> int:
    click.echo(f"relayctl: {' '.join(message.split())}", err=True)
    return status
