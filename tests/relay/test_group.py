"""What shows a new viewer a picture at once."""

from relayd.relay.group import CONFIG, ENTRY_COST, KEYFRAME, Group


def frames(group: Group) -> list[bytes] | None:
    """Return the frames of the replay."""
    replay = group.replay()
    return None if replay is None else [frame for frame, _ in replay]


def test_unmarked() -> None:
    """Of a stream without marks nothing is kept."""
    group = Group(1000)
    group.add(b"a", 0)
    assert frames(group) == []
    assert not group.has_keyframes


def test_config_alone() -> None:
    """Where only configurations are marked, a new viewer gets the last one."""
    group = Group(1000)
    for frame, marks in ((b"a", 0), (b"b", CONFIG), (b"c", 0), (b"d", CONFIG)):
        group.add(frame, marks)
    assert frames(group) == [b"d"]


def test_group() -> None:
    """A new viewer gets the configuration and all frames since the last keyframe."""
    group = Group(10_000)
    for name in (b"c1", b"K1", b"a", b"c2", b"K2", b"b", b"d"):
        group.add(name, {b"c": CONFIG, b"K": KEYFRAME}.get(name[:1], 0) if name[1:] else 0)
    assert frames(group) == [b"c2", b"K2", b"b", b"d"]
    group.add(b"K3", KEYFRAME)
    assert frames(group) == [b"c2", b"K3"]
    assert group.replay() == [(b"c2", CONFIG), (b"K3", KEYFRAME)]


def test_config_within_a_group() -> None:
    """A group is replayed after the configuration that was in force at its keyframe."""
    group = Group(10_000)
    for frame, marks in ((b"old", CONFIG), (b"K", KEYFRAME), (b"a", 0), (b"new", CONFIG)):
        group.add(frame, marks)
    assert frames(group) == [b"old", b"K", b"a", b"new"]
    group.add(b"L", KEYFRAME)
    assert frames(group) == [b"new", b"L"]


def test_keyframe_with_its_own_config() -> None:
    """A keyframe that is marked as a configuration too needs no other."""
    group = Group(10_000)
    group.add(b"old", CONFIG)
    group.add(b"both", CONFIG | KEYFRAME)
    assert frames(group) == [b"both"]
    assert group.config == b"both"


def test_limit() -> None:
    """A group that grows too large is let go until the next keyframe; the configuration stays."""
    group = Group(3 * (10 + ENTRY_COST))
    group.add(b"c" * 10, CONFIG)
    group.add(b"K" * 10, KEYFRAME)
    group.add(b"a" * 10, 0)
    assert frames(group) is not None
    group.add(b"", 0)
    assert frames(group) is None
    group.add(b"a", 0)
    assert frames(group) is None
    group.add(b"L", KEYFRAME)
    assert frames(group) == [b"c" * 10, b"L"]


def test_no_group() -> None:
    """A limit of 0 keeps no group, but the configuration."""
    group = Group(0)
    group.add(b"c", CONFIG)
    group.add(b"K", KEYFRAME)
    assert frames(group) is None
    assert group.has_keyframes
    assert group.config == b"c"
