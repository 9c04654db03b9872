"""The sequence parameter set of H.264 (ITU-T H.264 section 7.3.2.1.1): codec and picture size."""

from .cutting import VideoFormat

_PROFILES_WITH_CHROMA = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
"""The profile_idc whose parameter sets say which chroma format and which scaling lists they use."""

_MACROBLOCK = 16  # Pixels, both ways.
_SUBSAMPLING = {0: (1, 1), 1: (2, 2), 2: (2, 1), 3: (1, 1)}
"""SubWidthC and SubHeightC by chroma_format_idc (table 6-1); 1 for monochrome (7.4.2.1.1)."""

_MAX_LEADING_ZEROS = 32
"""Of an Exp-Golomb code: ue(v) is at most 2^32 - 2 (section 7.2)."""


class _Bits:
    """Reads the bits of a raw byte sequence payload, first to last.

    Raises:
        ValueError: If there are none left, or they make no number.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def flag(self) -> bool:
        """Read u(1)."""
        place, shift = divmod(self._position, 8)
        if place >= len(self._data):
            raise ValueError("the parameter set is cut short")
        self._position += 1
        return bool(self._data[place] >> (7 - shift) & 1)

    def number(self, size: int) -> int:
        """Read u(n)."""
        value = 0
        for _ in range(size):
            value = value << 1 | self.flag()
        return value

    def unsigned(self) -> int:
        """Read ue(v), an Exp-Golomb code (section 9.1)."""
        zeros = 0
        while not self.flag():
            zeros += 1
            if zeros > _MAX_LEADING_ZEROS:
                raise ValueError("a number is out of range")
        return (1 << zeros) - 1 + self.number(zeros)

    def signed(self) -> int:
        """Read se(v) (section 9.1.1)."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def describe(nal_unit: bytes) -> VideoFormat:
    """Return the codec and the picture's size, as far as the NAL unit, without start code, goes."""
    # In a NAL unit a byte 3 keeps two zeros and what follows from making a start code (7.4.1).
    payload = nal_unit[1:].replace(b"\0\0\3", b"\0\0")
    if len(payload) < 3:
        return {}
    codec = {"codec": f"avc1.{payload[:3].hex().upper()}"}
    try:
        width, height = _size(payload)
    except ValueError:
        return codec
    return {**codec, "width": width, "height": height}


def _size(payload: bytes) -> tuple[int, int]:
    """Read width and height in pixels; the names in the comments are those of the standard.

    Raises:
        ValueError: If the parameter set is cut short or says what can't be.
    """
    bits = _Bits(payload[3:])
    bits.unsigned()  # seq_parameter_set_id
    chroma = _chroma(bits) if payload[0] in _PROFILES_WITH_CHROMA else 1
    _skip_order_and_references(bits)
    columns, rows = bits.unsigned() + 1, bits.unsigned() + 1
    fields = 2 - bits.flag()  # frame_mbs_only_flag: else a row of the map is a pair of fields.
    if fields == 2:
        bits.flag()  # mb_adaptive_frame_field_flag
    bits.flag()  # direct_8x8_inference_flag
    left, right, top, bottom = (
        [bits.unsigned() for _ in range(4)] if bits.flag() else [0, 0, 0, 0]  # frame_cropping_flag
    )
    unit_x, unit_y = _SUBSAMPLING[chroma]
    width = columns * _MACROBLOCK - unit_x * (left + right)
    height = fields * (rows * _MACROBLOCK - unit_y * (top + bottom))
    if width <= 0 or height <= 0:
        raise ValueError("the whole picture is cropped")
    return width, height


def _chroma(bits: _Bits) -> int:
    """Read what high profiles have more of; return chroma_format_idc."""
    chroma_format = bits.unsigned()
    if chroma_format not in _SUBSAMPLING:
        raise ValueError("there is no such chroma format")
    if chroma_format == 3:
        bits.flag()  # separate_colour_plane_flag: the crop units are 1 either way.
    bits.unsigned()  # bit_depth_luma_minus8
    bits.unsigned()  # bit_depth_chroma_minus8
    bits.flag()  # qpprime_y_zero_transform_bypass_flag
    if bits.flag():  # seq_scaling_matrix_present_flag
        for index in range(12 if chroma_format == 3 else 8):
            if bits.flag():  # seq_scaling_list_present_flag
                _skip_scaling_list(bits, 16 if index < 6 else 64)
    return chroma_format


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    """Skip a scaling list (section 7.3.2.1.1.1), which ends early where a scale is 0."""
    scale = 8
    for _ in range(size):
        scale = (scale + bits.signed()) % 256
        if scale == 0:
            return


def _skip_order_and_references(bits: _Bits) -> None:
    bits.unsigned()  # log2_max_frame_num_minus4
    order_type = bits.unsigned()  # pic_order_cnt_type
    if order_type == 0:
        bits.unsigned()  # log2_max_pic_order_cnt_lsb_minus4
    elif order_type == 1:
        bits.flag()  # delta_pic_order_always_zero_flag
        bits.signed()  # offset_for_non_ref_pic
        bits.signed()  # offset_for_top_to_bottom_field
        for _ in range(bits.unsigned()):  # num_ref_frames_in_pic_order_cnt_cycle
            bits.signed()
    bits.unsigned()  # max_num_ref_frames
    bits.flag()  # gaps_in_frame_num_value_allowed_flag
