"""The bytes of WebSocket frames."""

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from relayd.relay.frames import binary_frame, text_frame


@given(st.binary(max_size=200) | st.sampled_from([65_535, 65_536, 100_000]).map(bytes))
def test_frames_as_the_library_reads_them(payload: bytes) -> None:
    """A client reads the payload back from the bytes of a frame."""
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(binary_frame(payload) + text_frame("é"))
    binary, text = client.events_received()
    assert (binary.opcode, binary.fin, binary.data) == (Opcode.BINARY, True, payload)
    assert (text.opcode, text.fin, text.data) == (Opcode.TEXT, True, "é".encode())
