"""Every setting of relayd: name, default, unit, check.

`Config` is the one table: the command line, the environment and the README follow it.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(Exception):
    """A setting has a value that it can't have; the text is one line for the user."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}: {value!r} is not allowed; give {allowed}")


@dataclass(frozen=True)
class Kind:
    """What the values of a setting look like.

    ``parse`` reads the user's text and raises ValueError for what ``allowed`` (a phrase for error
    messages) rules out; ``show`` writes a value so that ``parse`` reads it again. ``metavar``
    stands for a value in the help.
    """

    metavar: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str]
    allowed: str


_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SIZE_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}
_BITRATE_UNITS = {"": 1, "bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


def _measure(text: str, units: Mapping[str, float]) -> float:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(text)
    return float(match[1]) * units[match[2].lower()]


def _check_range(value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(value)


def _show_whole(value: int, units: Mapping[str, int]) -> str:
    """Write a value in the first of these units of which it is a multiple."""
    for unit, factor in units.items():
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def _show_size(value: int) -> str:
    return _show_whole(value, {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10})


def _show_time(value: float) -> str:
    return f"{value:g}s" if value >= 1 or value == 0 else f"{value * 1000:g}ms"


def _count(low: int, high: int) -> Kind:
    def parse(text: str) -> int:
        value = int(text)
        _check_range(value, low, high)
        return value

    return Kind("NUMBER", parse, str, f"a whole number from {low} to {high}")


def _size(low: int, high: int) -> Kind:
    def parse(text: str) -> int:
        value = _measure(text, _SIZE_UNITS)
        _check_range(value, low, high)
        return int(value)

    allowed = f"bytes or a size such as 512KiB, from {_show_size(low)} to {_show_size(high)}"
    return Kind("SIZE", parse, _show_size, allowed)


def _time(low: float, high: float) -> Kind:
    def parse(text: str) -> float:
        value = _measure(text, _TIME_UNITS)
        _check_range(value, low, high)
        return value

    allowed = f"seconds or a time such as 500ms, from {_show_time(low)} to {_show_time(high)}"
    return Kind("TIME", parse, _show_time, allowed)


def _show_bitrate(value: int | None) -> str:
    if value is None:
        return "none"
    return _show_whole(value, {"Gbit": 10**9, "Mbit": 10**6, "kbit": 10**3})


def _bitrate(low: int, high: int) -> Kind:
    def parse(text: str) -> int | None:
        if text.strip().lower() == "none":
            return None
        value = _measure(text, _BITRATE_UNITS)
        _check_range(value, low, high)
        return round(value)

    allowed = f"none, or bits a second such as 8Mbit, from {_show_bitrate(low)}"
    return Kind("BITRATE", parse, _show_bitrate, f"{allowed} to {_show_bitrate(high)}")


def _choice(*words: str) -> Kind:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return Kind("|".join(words), parse, str, f"{', '.join(words[:-1])} or {words[-1]}")


def _switch() -> Kind:
    words = {"on": True, "off": False}

    def parse(text: str) -> bool:
        try:
            return words[text.strip().lower()]
        except KeyError:
            raise ValueError(text) from None

    return Kind("on|off", parse, lambda value: "on" if value else "off", "on or off")


# As browsers serialise it in `Origin` (RFC 6454 section 6.2); null is that of a file, for example.
_ORIGIN = re.compile(r"null|([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9]\d{0,4})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def _show_origins(value: tuple[str, ...]) -> str:
    return ",".join(value) or "any"


def _origins() -> Kind:
    def parse(text: str) -> tuple[str, ...]:
        words = [word.lower() for word in re.split(r"[\s,]+", text.strip())]
        return () if words == ["any"] else tuple(dict.fromkeys(map(origin, words)))

    def origin(text: str) -> str:
        match = _ORIGIN.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return text.removesuffix(_DEFAULT_PORTS.get(match[1], ""))

    example = "https://app.example.org (no path, no slash at the end)"
    allowed = f"any, or origins such as {example}, with commas between them"
    return Kind("ORIGINS", parse, _show_origins, allowed)


def _text(allowed: str) -> Kind:
    def parse(text: str) -> str:
        if not text.strip():
            raise ValueError(text)
        return text.strip()

    return Kind("TEXT", parse, str, allowed)


def _optional_port() -> Kind:
    def parse(text: str) -> int | None:
        if text.strip().lower() == "off":
            return None
        value = int(text)
        _check_range(value, 0, 65535)
        return value

    allowed = "off, or a whole number from 0 to 65535"
    return Kind("PORT", parse, lambda value: "off" if value is None else str(value), allowed)


def _networks() -> Kind:
    def parse(text: str) -> tuple[Network, ...]:
        words = re.split(r"[\s,]+", text.strip())
        return () if words == ["none"] else tuple(ipaddress.ip_network(word) for word in words)

    def show(value: tuple[Network, ...]) -> str:
        return ",".join(map(str, value)) or "none"

    allowed = "none, or networks such as 10.0.0.0/8, with commas between them"
    return Kind("NETWORKS", parse, show, allowed)


def _path() -> Kind:
    def parse(text: str) -> str | None:
        if not text.strip():
            raise ValueError(text)
        return None if text.strip().lower() == "none" else text.strip()

    return Kind("FILE", parse, lambda value: value or "none", "none, or the path of a file")


def _setting(default: Any, kind: Kind, help_text: str, default_text: str | None = None) -> Any:
    shown = kind.show(default) if default_text is None else default_text
    return dataclasses.field(
        default=default, metadata={"kind": kind, "help": help_text, "default": shown}
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one relay. Sizes are in bytes, times in seconds."""

    host: str = _setting("0.0.0.0", _text("a host name or an address"), "Address to listen on.")  # noqa: S104
    port: int = _setting(8080, _count(0, 65535), "Port to listen on; 0 takes a free one.")
    max_streams: int = _setting(100, _count(1, 1_000_000), "Streams at a time.")
    max_viewers_per_stream: int = _setting(10, _count(1, 1_000_000), "Viewers of one stream.")
    max_connections: int = _setting(
        0,
        _count(1, 10_000_000),
        "Open connections of every kind; past it, new WebSockets get 503.",
        default_text="MAX_STREAMS × (MAX_VIEWERS_PER_STREAM + 1) + 100",
    )
    max_frame_size: int = _setting(16 * 2**20, _size(16 * 2**10, 2**30), "Largest video frame.")
    max_stream_bitrate: int | None = _setting(
        None,
        _bitrate(100_000, 100 * 10**9),
        "Most bits a second that one streamer may push; past it, relayd reads no faster.",
    )
    max_lag: float = _setting(
        1.0, _time(0.01, 3600), "Most time that a viewer's picture is behind; past it, frames drop."
    )
    viewer_buffer: int = _setting(
        4 * 2**20, _size(1, 2**30), "Most bytes of frames that wait for one slow viewer."
    )
    stall_timeout: float = _setting(
        15.0, _time(0.1, 3600), "Time that a viewer's network may take nothing of what waits."
    )
    group_buffer: int = _setting(
        2 * 2**20,
        _size(0, 2**30),
        "Most bytes of frames since the last keyframe kept for new viewers; 0 keeps none.",
    )
    register_timeout: float = _setting(
        10.0, _time(0.001, 3600), "Time for the handshake, and again for the first message."
    )
    resume_window: float = _setting(
        15.0, _time(0, 86400), "Time that a lost streamer has to resume its stream; 0 keeps none."
    )
    ping_interval: float = _setting(
        20.0, _time(0, 3600), "Time between keepalive pings; 0 sends none."
    )
    ping_timeout: float = _setting(
        20.0, _time(0, 3600), "Time that a ping may go unanswered; 0 waits for ever."
    )
    drain_timeout: float = _setting(
        5.0, _time(0, 3600), "Time that streams go on when relayd is stopped; then they are closed."
    )
    allowed_origins: tuple[str, ...] = _setting(
        (),
        _origins(),
        "Origins of pages that may view and stream, relayd's own among them; apps send none.",
    )
    tls_cert: str | None = _setting(
        None, _path(), "Certificate chain in PEM, for https and wss; read again on SIGHUP."
    )
    tls_key: str | None = _setting(
        None, _path(), "Its private key in PEM; none: it is in TLS_CERT too."
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        (), _networks(), "Networks of proxies whose X-Forwarded-For the log believes."
    )
    admin_host: str = _setting(
        "127.0.0.1", _text("a host name or an address"), "Address of the operator's port."
    )
    admin_port: int | None = _setting(
        None, _optional_port(), "The operator's port: /metrics, /streams; 0 takes a free one."
    )
    pages: bool = _setting(True, _switch(), "The built-in pages: /, /share and /watch/ID.")
    log_level: str = _setting(
        "info", _choice("debug", "info", "warning", "error"), "Least important log record shown."
    )
    log_format: str = _setting("text", _choice("text", "json"), "Form of a log record.")

    def __post_init__(self) -> None:
        """Give max_connections, where it was left out, room for every stream and viewer."""
        if not self.max_connections:
            room = self.max_streams * (self.max_viewers_per_stream + 1) + 100
            object.__setattr__(self, "max_connections", room)

    @classmethod
    def from_text(cls, values: Mapping[str, str]) -> "Config":
        """Read settings from text, by field name; those left out have their defaults.

        Raises:
            ConfigError: If a value is not allowed; it names the setting, the value and what is.
        """
        parsed: dict[str, Any] = {}
        for setting in SETTINGS:
            if setting.field not in values:
                continue
            text = values[setting.field]
            try:
                parsed[setting.field] = setting.kind.parse(text)
            except ValueError:
                raise ConfigError(setting.variable, text, setting.kind.allowed) from None
        config = cls(**parsed)
        if config.tls_key and not config.tls_cert:
            raise ConfigError("TLS_CERT", "none", "the certificate of TLS_KEY")
        return config

    def to_text(self) -> dict[str, str]:
        """Return every setting as text that `from_text` reads, by environment variable."""
        return {s.variable: s.kind.show(getattr(self, s.field)) for s in SETTINGS}


@dataclass(frozen=True)
class Setting:
    """One row of the table: a field of `Config` and how users give it."""

    field: str
    kind: Kind
    help: str
    default: str

    @property
    def variable(self) -> str:
        """The environment variable: MAX_STREAMS."""
        return self.field.upper()

    @property
    def option(self) -> str:
        """The command-line option: --max-streams."""
        return "--" + self.field.replace("_", "-")


SETTINGS = tuple(Setting(field.name, **field.metadata) for field in dataclasses.fields(Config))
"""Every setting, in the order in which they are shown."""
