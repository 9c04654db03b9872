"""The settings: defaults, units, checks."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.config import SETTINGS, Config, ConfigError


def test_defaults() -> None:
    """The default of each setting, as text, gives that default."""
    for setting in SETTINGS:
        if setting.field != "max_connections":
            read = Config.from_text({setting.field: setting.default})
            assert read == Config()


def test_max_connections() -> None:
    """MAX_CONNECTIONS left out has room for every stream and viewer."""
    assert Config().max_connections == 1200
    assert Config(max_streams=3, max_viewers_per_stream=7).max_connections == 3 * 8 + 100
    assert Config.from_text({"max_connections": "5"}).max_connections == 5


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20000", 20_000),
        ("20000 B", 20_000),
        ("64KiB", 65_536),
        ("64 kib", 65_536),
        ("64kB", 64_000),
        ("1.5MiB", 1_572_864),
        ("2MB", 2_000_000),
        ("1GiB", 2**30),
        ("0.5gb", 500_000_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """A size is bytes, or has a unit."""
    assert Config.from_text({"max_frame_size": text}).max_frame_size == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("0.25", 0.25), ("250ms", 0.25), ("7s", 7), ("2 min", 120), ("1h", 3600)],
)
def test_times(text: str, seconds: float) -> None:
    """A time is seconds, or has a unit."""
    assert Config.from_text({"drain_timeout": text}).drain_timeout == seconds


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("250000", 250_000),
        ("250000 bit", 250_000),
        ("250kbit", 250_000),
        ("8Mbit", 8_000_000),
        ("8 mbit", 8_000_000),
        ("2.5MBIT", 2_500_000),
        ("0.1Mbit", 100_000),
        ("1.001Mbit", 1_001_000),
        ("1Gbit", 10**9),
        ("100 Gbit", 100 * 10**9),
        ("none", None),
        (" None ", None),
    ],
)
def test_bitrates(text: str, bits: int | None) -> None:
    """A bitrate is bits a second, or has a unit; or there is none."""
    assert Config.from_text({"max_stream_bitrate": text}).max_stream_bitrate == bits


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (None, "none"),
        (123_457, "123457"),
        (1_500_000, "1500kbit"),
        (8_000_000, "8Mbit"),
        (2_000_000_000, "2Gbit"),
    ],
)
def test_bitrates_shown(bits: int | None, text: str) -> None:
    """A bitrate is shown in the largest unit that it is a whole number of."""
    assert Config(max_stream_bitrate=bits).to_text()["MAX_STREAM_BITRATE"] == text


def test_none_of_it() -> None:
    """Zero means that no group is kept, that no stream can be resumed, that no pings are sent."""
    for field in ("group_buffer", "resume_window", "ping_interval", "ping_timeout"):
        assert getattr(Config.from_text({field: "0"}), field) == 0


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("any", ()),
        (" Any ", ()),
        ("https://a.example", ("https://a.example",)),
        ("https://A.example:443, http://a.example:80", ("https://a.example", "http://a.example")),
        ("http://[::1]:8080,null", ("http://[::1]:8080", "null")),
        ("https://a.example,https://a.example", ("https://a.example",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
    ],
)
def test_origins(text: str, origins: tuple[str, ...]) -> None:
    """Origins are as browsers send them: lower case, without a default port."""
    config = Config.from_text({"allowed_origins": text})
    assert config.allowed_origins == origins
    assert Config.from_text({"allowed_origins": config.to_text()["ALLOWED_ORIGINS"]}) == config


@pytest.mark.parametrize(("text", "is_on"), [("on", True), ("OFF", False)])
def test_switch(text: str, is_on: bool) -> None:
    """A switch is on or off."""
    assert Config.from_text({"pages": text}).pages is is_on


@pytest.mark.parametrize(
    ("field", "text", "complaint"),
    [
        ("port", "65536", "PORT: '65536' is not allowed; give a whole number from 0 to 65535"),
        ("port", "-1", "PORT: '-1' is not allowed; give a whole number from 0 to 65535"),
        ("port", "http", "PORT: 'http' is not allowed; give a whole number from 0 to 65535"),
        ("max_streams", "0", "MAX_STREAMS: '0' is not allowed; give a whole number from 1 to"),
        ("max_streams", "1.5", "MAX_STREAMS: '1.5' is not allowed; give a whole number"),
        ("max_frame_size", "16Mib/s", "MAX_FRAME_SIZE: '16Mib/s' is not allowed; give bytes or a"),
        ("max_frame_size", "2GiB", "size such as 512KiB, from 16KiB to 1GiB"),
        ("register_timeout", "0", "seconds or a time such as 500ms, from 1ms to 3600s"),
        ("ping_interval", "nan", "PING_INTERVAL: 'nan' is not allowed"),
        (
            "max_stream_bitrate",
            "0",
            "MAX_STREAM_BITRATE: '0' is not allowed; give none, or bits a s",
        ),
        ("max_stream_bitrate", "99999", "such as 8Mbit, from 100kbit to 100Gbit"),
        ("max_stream_bitrate", "101Gbit", "from 100kbit to 100Gbit"),
        ("max_stream_bitrate", "8MB", "MAX_STREAM_BITRATE: '8MB' is not allowed"),
        ("max_stream_bitrate", "8Mbit/s", "MAX_STREAM_BITRATE: '8Mbit/s' is not allowed"),
        ("max_stream_bitrate", "", "MAX_STREAM_BITRATE: '' is not allowed"),
        ("max_lag", "none", "MAX_LAG: 'none' is not allowed; give seconds or a time such as"),
        ("max_lag", "0", "from 10ms to 3600s"),
        ("stall_timeout", "0", "from 100ms to 3600s"),
        ("viewer_buffer", "0", "from 1 to 1GiB"),
        ("group_buffer", "-1", "from 0 to 1GiB"),
        ("resume_window", "25h", "from 0s to 86400s"),
        ("log_level", "loud", "'loud' is not allowed; give debug, info, warning or error"),
        ("log_format", "xml", "LOG_FORMAT: 'xml' is not allowed; give text or json"),
        ("pages", "maybe", "PAGES: 'maybe' is not allowed; give on or off"),
        (
            "allowed_origins",
            "",
            "give any, or origins such as https://app.example.org (no path, no slash at the end), "
            "with commas between them",
        ),
        ("allowed_origins", "any, https://a.example", "ALLOWED_ORIGINS: 'any, https://a.example'"),
        ("allowed_origins", "a.example", "ALLOWED_ORIGINS: 'a.example' is not allowed"),
        ("allowed_origins", "https://a.example/", "'https://a.example/' is not allowed"),
        ("allowed_origins", "https://a.example/app", "'https://a.example/app' is not allowed"),
        ("allowed_origins", "https://a.example:0443", "'https://a.example:0443' is not allowed"),
        ("allowed_origins", "https://a@b.example", "'https://a@b.example' is not allowed"),
        ("allowed_origins", "https://a.example,", "'https://a.example,' is not allowed"),
        ("host", " ", "HOST: ' ' is not allowed; give a host name or an address"),
    ],
)
def test_bad_values(field: str, text: str, complaint: str) -> None:
    """A bad value is one line that names the setting, the value and what is allowed."""
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        Config.from_text({field: text})
    assert "\n" not in str(caught.value)


@given(st.none() | st.integers(100_000, 100 * 10**9) | st.integers(100, 10**8).map((1000).__mul__))
def test_bitrate_round_trip(bits: int | None) -> None:
    """A bitrate as text gives the same bitrate again, to the bit."""
    shown = Config(max_stream_bitrate=bits).to_text()["MAX_STREAM_BITRATE"]
    assert Config.from_text({"max_stream_bitrate": shown}).max_stream_bitrate == bits


@given(
    st.sampled_from(["http", "https", "capacitor"]),
    st.from_regex(
        r"[a-zA-Z0-9-]{1,9}(\.[a-zA-Z0-9-]{1,9}){0,2}|\[(::1|FE80::[0-9A-F])\]", fullmatch=True
    ),
    st.none() | st.sampled_from([80, 443, 8080]) | st.integers(1, 65535),
)
def test_origin_round_trip(scheme: str, host: str, port: int | None) -> None:
    """Any origin is read as a browser writes it, and that is read as the same again."""
    written = f"{scheme}://{host.lower()}"
    if port is not None and (scheme, port) not in (("http", 80), ("https", 443)):
        written += f":{port}"
    text = f"{scheme.title()}://{host}" + (f":{port}" if port else "")
    for spelling in (text, written):
        assert Config.from_text({"allowed_origins": spelling}).allowed_origins == (written,)


@given(
    st.integers(16 * 2**10, 2**30),
    st.integers(1, 3_600_000),
    st.sampled_from(["INFO", "Warning", "debug"]),
)
def test_text_round_trip(size: int, milliseconds: int, level: str) -> None:
    """The settings as text give the same settings again."""
    config = Config.from_text(
        {"max_frame_size": str(size), "ping_timeout": f"{milliseconds}ms", "log_level": level}
    )
    shown = {variable.lower(): text for variable, text in config.to_text().items()}
    again = dataclasses.asdict(Config.from_text(shown))
    assert again.pop("ping_timeout") == pytest.approx(config.ping_timeout, rel=1e-5)
    assert again.items() <= dataclasses.asdict(config).items()


def test_names() -> None:
    """A setting's variable and option are its name in capitals and in lower case."""
    names = {setting.field: (setting.variable, setting.option) for setting in SETTINGS}
    assert names["max_streams"] == ("MAX_STREAMS", "--max-streams")
    assert names["max_stream_bitrate"] == ("MAX_STREAM_BITRATE", "--max-stream-bitrate")


def test_table() -> None:
    """The settings and their defaults are those of ARCHITECTURE.md."""
    shown = {setting.variable: setting.default for setting in SETTINGS}
    assert shown.items() >= {
        ("MAX_STREAM_BITRATE", "none"),
        ("MAX_LAG", "1s"),
        ("VIEWER_BUFFER", "4MiB"),
        ("STALL_TIMEOUT", "15s"),
        ("GROUP_BUFFER", "2MiB"),
        ("RESUME_WINDOW", "15s"),
    }
