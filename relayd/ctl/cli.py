"""The command line of relayctl: options, exit codes, one line for every error."""

import asyncio
import json
import re
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn

import click

from .. import __version__, protocol
from . import client, pattern, source, table
from .bench import bench as bench_server
from .cutting import MediaError
from .link import STAMP_SIZE
from .load import Load
from .operator import DEFAULT_ADMIN, Address, Operator
from .pace import Schedule
from .publish import publish as publish_stream
from .source import STDIN
from .tasks import until_interrupted
from .top import top as show_top
from .watch import STDOUT
from .watch import watch as watch_stream

DEFAULT_FPS = 30.0
MAX_FPS = 1000.0

DEFAULT_SIZE = 32 * 2**10
MAX_SIZE = 2**30
MAX_DURATION = 24 * 3600.0

MIN_INTERVAL = 0.1


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


def _admin(ctx: click.Context, param: click.Parameter, value: str) -> Operator:
    try:
        return Operator(Address.parse(value))
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} is not where an operator's port is: {exc}") from None


def _interval(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if MIN_INTERVAL <= value <= MAX_DURATION:
        return value
    raise click.BadParameter(f"{value} is not from {MIN_INTERVAL} to {MAX_DURATION:.0f}")


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

admin_option = click.option(
    "--admin",
    "operator",
    metavar="URL|PATH",
    callback=_admin,
    default=DEFAULT_ADMIN,
    envvar="RELAYD_ADMIN",
    show_default=True,
    show_envvar=True,
    help="The operator's port: http://, host:port or the path of a Unix socket.",
)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="relayctl", message="%(prog)s %(version)s")
@click.pass_context
def relayctl(ctx: click.Context) -> None:
    """Publish live streams to a relayd server, watch them, measure the server and operate it.

    \b
    Try it, with a relayd on this machine:
      relayctl publish --test-pattern --id demo
      relayctl watch demo

    Ctrl-C ends either. On a terminal both show frames and bits per second; in a pipe they say
    nothing but what goes wrong.

    streams, top and kick talk to the operator's port of relayd, all others to the port of
    streamers and viewers.
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


@relayctl.command("streams", short_help="List the streams, or one with its viewers.")
@click.argument("stream_id", metavar="[ID]", required=False, callback=_stream_id)
@admin_option
@click.option("--json", "as_json", is_flag=True, help="Print what the server says, as JSON.")
def list_streams(stream_id: str | None, operator: Operator, as_json: bool) -> None:
    """List the streams, or the stream ID with its viewers.

    The rates are those of the last second or two. STATE says what is up, as far as the figures
    prove it:

    \b
      streamer lost         its connection broke; relayd waits for it to come back
      stalled               frames wait; the network takes none for a second
      slow network          what is sent now is late, or frames are dropped
      waits for a keyframe  frames come, but none that the viewer could decode yet
      no frames come        the streamer sends nothing; its screen may stand still

    Of a viewer, LAG is by how much a frame sent now arrives late, RTT the time to the viewer and
    back, QUEUE the bytes that wait in relayd, UNACKED the bytes that the kernel has sent or will;
    LATE, BUFFER and KEYFRAME are frames dropped so far: older than MAX_LAG, past VIEWER_BUFFER,
    and of no use until the next keyframe.

    \b
    Examples:
      relayctl streams
      relayctl streams lobby
      relayctl streams --json | jq '.streams[].viewers[] | select(.dropped > 0)'
      relayctl streams --admin 127.0.0.1:9090
    """
    if as_json:
        click.echo(json.dumps(operator.report(stream_id)))
        return
    streams = operator.streams(stream_id)
    lines = table.streams(streams) if stream_id is None else table.one_stream(streams[0])
    click.echo("\n".join(lines))


@relayctl.command("top", short_help="Show the streams, those in trouble first, again and again.")
@click.argument("stream_id", metavar="[ID]", required=False, callback=_stream_id)
@admin_option
@click.option(
    "--interval",
    type=float,
    metavar="SECONDS",
    callback=_interval,
    default=1.0,
    show_default=True,
    help="Time between two tables.",
)
@click.option(
    "-n", "--count", type=click.IntRange(1), metavar="N", help="End after so many tables."
)
def watch_streams(
    stream_id: str | None, operator: Operator, interval: float, count: int | None
) -> None:
    """Show the streams and the viewers in trouble; of the stream ID all viewers.

    Who is in trouble is on top. The columns and states are those of relayctl streams, which
    --help explains. Ctrl-C ends it. In a pipe, one table follows the other.

    \b
    Examples:
      relayctl top
      relayctl top lobby
      relayctl top --interval 60 >> /var/log/relayd-top.log
      relayctl top -n 1 --admin http://127.0.0.1:9090
    """
    _run(show_top(operator, stream_id, interval, count))


@relayctl.command(short_help="Close a stream, or the connection of one viewer.")
@click.argument("stream_id", metavar="[ID]", required=False, callback=_stream_id)
@admin_option
@click.option(
    "--viewer",
    type=click.IntRange(0),
    metavar="N",
    help="Close this viewer's connection; relayctl streams ID shows the numbers.",
)
def kick(stream_id: str | None, operator: Operator, viewer: int | None) -> None:
    """Close the stream ID, or with --viewer the connection of one viewer.

    Whoever is kicked may come back at once: relayd has no accounts. To keep somebody out, refuse
    them in the proxy or the firewall.

    \b
    Examples:
      relayctl kick lobby
      relayctl kick --viewer 17
      relayctl kick lobby --admin 127.0.0.1:9090
    """
    if (stream_id is None) == (viewer is None):
        raise click.UsageError("Name one: a stream's ID, or --viewer N.")
    if stream_id is not None:
        operator.kick_stream(stream_id)
        click.echo(f"Closed the stream {stream_id}.")
    if viewer is not None:
        operator.kick_viewer(viewer)
        click.echo(f"Closed the connection of viewer {viewer}.")


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
