"""A stream and its player in a browser that takes notes of what is drawn."""

import socket
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clips
import film
from browser import Pixel, is_like, open_page, picture, wait_until
from film import Picture
from harness import RelayProcess
from websockets.sync.client import ClientConnection

PLAYER = "document.querySelector('relayd-player')"

_SCRIPT = Path(__file__).parent / "assets" / "recorder.js"


@dataclass(frozen=True)
class Drawn:
    """A picture that a player drew.

    Attributes:
        at: When, in seconds since the Unix epoch.
        number: What its counter says.
        colours: Pixels of its corners.
        size: Its width and height.
    """

    at: float
    number: int
    colours: list[Pixel]
    size: tuple[int, int]


@contextmanager
def recording(browser: Any, **options: Any) -> Iterator[Any]:
    """Give a browser context with a recorder in each page."""
    with browser.new_context(**options) as context:
        context.add_init_script(path=_SCRIPT)
        yield context


def watch(
    browser: Any, relay: RelayProcess, stream_id: str, **options: Any
) -> AbstractContextManager[Any]:
    """Open the page of a relay that shows a stream."""
    return open_page(browser, f"http://127.0.0.1:{relay.port}/watch/{stream_id}", **options)


def push(streamer: ClientConnection, pictures: Iterable[Picture]) -> None:
    """Send pictures as fast as they go."""
    for messages in pictures:
        film.send(streamer, messages)


def lose(streamer: ClientConnection) -> None:
    """End a connection without a close frame, as a phone does that leaves the network."""
    streamer.socket.shutdown(socket.SHUT_RDWR)


def drawn(page: Any) -> list[Drawn]:
    """Return what the player on a page has drawn, in order."""
    return [
        Drawn(draw["at"] / 1000, draw["number"], draw["colours"], tuple(draw["size"]))
        for draw in page.evaluate("recorder.draws")
    ]


def numbers(page: Any) -> list[int]:
    """Return the counters of what the player on a page has drawn."""
    return [draw.number for draw in drawn(page)]


def wait_for_picture(page: Any, number: int) -> None:
    """Wait until the player shows a picture of a clip; its colours must be those of the source."""
    wait_until(page, f"recorder.number === {number}")
    check_colours(picture(page, clips.CORNERS))


def check_colours(found: list[Pixel]) -> None:
    """Compare the corners of a picture with the source's."""
    for one, wanted in zip(found, clips.COLOURS, strict=True):
        assert is_like(one, wanted), f"{found} instead of {clips.COLOURS}"


def check_drawn(page: Any) -> None:
    """Check that no picture was torn: each is one of the clip's, later than the one before."""
    shown = drawn(page)
    assert [draw.number for draw in shown] == sorted({draw.number for draw in shown})
    for draw in shown:
        check_colours(draw.colours)


def told(page: Any) -> list[str]:
    """Return the states that the player on a page has told of, in order."""
    states: list[str] = page.evaluate(
        "recorder.events.filter(([type]) => type === 'statechange').map(([, to]) => to.state)"
    )
    return states
