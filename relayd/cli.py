"""The ``relayd`` command: options and environment to `Config`, logging, the event loop."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from . import __version__
from .config import SETTINGS, Config, ConfigError
from .server import Relay, StartError
from .systemd import Notifier, listening_sockets, stderr_is_journal

CANNOT_RUN = 1
BAD_USAGE = 2

EPILOG = """
\b
Every option is also read from the environment, by its name in capitals:
  MAX_STREAMS=20 relayd --port 9000
Sizes are bytes or have a unit (512KiB, 16MiB), times are seconds or have one (500ms, 2min).
"""


def main() -> None:
    """Run relayd; exit with 0 when it ended cleanly, 1 when it can't run, 2 on bad usage."""
    try:
        run.main(prog_name="relayd", standalone_mode=False)
    except (ConfigError, click.UsageError) as exc:
        message = exc.format_message() if isinstance(exc, click.UsageError) else str(exc)
        click.echo(f"relayd: {message}", err=True)
        sys.exit(BAD_USAGE)
    except StartError as exc:
        click.echo(f"relayd: {exc}", err=True)
        sys.exit(CANNOT_RUN)


def _setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for every setting."""
    for setting in reversed(SETTINGS):
        option = click.option(
            setting.option,
            setting.field,
            envvar=setting.variable,
            metavar=setting.kind.metavar,
            help=f"{setting.help} [{setting.default}]",
        )
        command = option(command)
    return command


@click.command(epilog=EPILOG, context_settings={"max_content_width": 100})
@_setting_options
@click.option("--check", is_flag=True, help="Check the settings, print them and exit.")
@click.version_option(__version__, message="%(prog)s %(version)s")
def run(check: bool, **values: str | None) -> None:
    """Relay live streams: phones push frames to /ws/stream, browsers watch at /ws/view/ID."""
    config = Config.from_text({name: text for name, text in values.items() if text is not None})
    if check:
        for variable, text in config.to_text().items():
            click.echo(f"{variable}={text}")
        return
    _set_up_logging(config)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config))


async def _serve(config: Config) -> None:
    await Relay(config, Notifier(), listening_sockets()).run()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop


def _set_up_logging(config: Config) -> None:
    handler = logging.StreamHandler()
    to_journal = stderr_is_journal()
    formatter = JsonFormatter() if config.log_format == "json" else TextFormatter(bare=to_journal)
    handler.setFormatter(JournalFormatter(formatter) if to_journal else formatter)
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    # The library tells of every handshake and, at debug, shows what is in every frame.
    logging.getLogger("relayd.websockets").setLevel(max(logging.WARNING, logging.root.level))


WHO = ("role", "stream", "peer")
"""What a log record says of a client, in order: its role, the stream's id, its address."""


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03}Z"


class TextFormatter(logging.Formatter):
    """``2026-11-22T18:19:13.250Z info viewer k3J9xQ2b 192.0.2.7:5312: subscribed``.

    Args:
        bare: Whether time and level are left out.
    """

    def __init__(self, *, bare: bool = False) -> None:
        super().__init__()
        self._bare = bare

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; only a traceback takes more than a line."""
        who = " ".join(getattr(record, name) for name in WHO if hasattr(record, name))
        message = f"{who}: {record.getMessage()}" if who else record.getMessage()
        # Stream ids and close reasons come from clients: no line breaks, no terminal escapes.
        record.message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        record.asctime = _timestamp(record)
        line = record.message
        if not self._bare:
            line = f"{record.asctime} {record.levelname.lower()} {line}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, role, stream, peer, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record, always on one line."""
        fields: dict[str, Any] = {"time": _timestamp(record), "level": record.levelname.lower()}
        fields |= {name: getattr(record, name) for name in WHO if hasattr(record, name)}
        fields["message"] = record.getMessage()
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class JournalFormatter(logging.Formatter):
    """Gives each line the prefix by which the journal knows its priority (sd-daemon(3)).

    Args:
        formatter: Writes the record.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; the lines of a traceback have its priority, too."""
        lines = self._formatter.format(record).splitlines()
        return "\n".join(f"<{_priority(record.levelno)}>{line}" for line in lines)


def _priority(level: int) -> int:
    """Return the priority (syslog(3)) of a level of logging: 7 of debug, 3 of error."""
    if level >= logging.ERROR:
        return 3
    return {logging.WARNING: 4, logging.INFO: 6}.get(level, 7)
