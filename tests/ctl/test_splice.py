"""Tests of how a stream goes on after an interruption."""

import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from relayd.ctl.cutting import CONFIG, KEYFRAME, Frame
from relayd.ctl.splice import Splice

INTERRUPTION = None

CONFIGS = [Frame(b"config 0", CONFIG), Frame(b"config 1", CONFIG)]
KEYFRAMES = [Frame(b"keyframe 0", KEYFRAME), Frame(b"keyframe 1", KEYFRAME)]
PICTURES = [Frame(b"picture 0"), Frame(b"picture 1")]

Event = Frame | None


def sent(events: Iterable[Event]) -> list[Frame]:
    """Return what is sent of frames and interruptions."""
    splice = Splice()
    frames: list[Frame] = []
    for event in events:
        if event is INTERRUPTION:
            splice.interrupt()
            continue
        is_admitted = splice.admits(event)
        admitted = splice.admit(event)
        assert is_admitted == bool(admitted)
        frames += admitted
    return frames


def test_it_goes_on_at_a_keyframe_after_its_config() -> None:
    """After an interruption nothing is sent until the last config and the next keyframe."""
    assert sent([CONFIGS[0], KEYFRAMES[0], INTERRUPTION, *PICTURES, KEYFRAMES[1], *PICTURES]) == [
        *(CONFIGS[0], KEYFRAMES[0]),
        *(CONFIGS[0], KEYFRAMES[1]),
        *PICTURES,
    ]


def test_a_new_config_is_the_last_one() -> None:
    """A config that comes before the keyframe is sent instead of the old one, and once."""
    assert sent([CONFIGS[0], KEYFRAMES[0], INTERRUPTION, CONFIGS[1], KEYFRAMES[1]]) == [
        *(CONFIGS[0], KEYFRAMES[0]),
        *(CONFIGS[1], KEYFRAMES[1]),
    ]


def test_images_go_on_at_once() -> None:
    """Where every frame is a keyframe, none is left out."""
    assert sent([KEYFRAMES[0], INTERRUPTION, KEYFRAMES[1]]) == KEYFRAMES


def test_a_stream_without_keyframes_goes_on_at_once() -> None:
    """Where there has been no keyframe, none is waited for; but the config is sent again."""
    assert sent([*PICTURES, INTERRUPTION, *PICTURES]) == [*PICTURES, *PICTURES]
    assert sent([CONFIGS[0], INTERRUPTION, CONFIGS[1], PICTURES[0]]) == [*CONFIGS, PICTURES[0]]


def test_the_sample_describes_the_stream_as_it_is() -> None:
    """The newest config describes a stream, sent or not; without one, the newest keyframe."""
    splice = Splice()
    assert splice.sample == b""
    splice.admit(PICTURES[0])
    assert splice.sample == b""
    splice.admit(KEYFRAMES[0])
    splice.admit(KEYFRAMES[1])
    assert splice.sample == b"keyframe 1"
    splice.admit(CONFIGS[0])
    splice.admit(KEYFRAMES[0])
    assert splice.sample == b"config 0"
    splice.interrupt()
    splice.admit(CONFIGS[1])
    assert splice.sample == b"config 1"


events = st.lists(st.sampled_from([INTERRUPTION, *CONFIGS, *KEYFRAMES, *PICTURES]))


@given(events)
def test_without_an_interruption_all_is_sent(events: list[Event]) -> None:
    """A stream that is not interrupted is sent as it is."""
    frames = [event for event in events if event is not INTERRUPTION]
    assert sent(frames) == frames


@given(events, st.booleans(), events)
def test_after_an_interruption(before: list[Event], has_keyframe: bool, after: list[Event]) -> None:
    """Whatever came before, a decoder can go on, and all is sent from there on."""
    if has_keyframe:
        before = [*before, KEYFRAMES[0]]
    frames = [event for event in after if event is not INTERRUPTION]
    resumed = sent([*before, INTERRUPTION, *frames])[len(sent(before)) :]
    needs_keyframe = KEYFRAMES[0] in before or KEYFRAMES[1] in before
    rest = list(
        itertools.dropwhile(
            lambda frame: frame.mark != KEYFRAME if needs_keyframe else frame.mark == CONFIG, frames
        )
    )
    skipped = frames[: len(frames) - len(rest)]
    configs = [event for event in [*before, *skipped] if event and event.mark == CONFIG]
    assert resumed == ([*configs[-1:], *rest] if rest else [])
