"""`service.domain.images`: which pictures go to a provider, and what a hostile one may cost."""

import base64
import struct
import zlib
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from service.domain.images import (
    MAX_BYTES,
    MAX_PARTS,
    ImageFacts,
    ImageFault,
    ImageFormat,
    PixelBudget,
    decode,
    encode,
    inspect,
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(kind: str, width: int = 300, height: int = 300, *, mode: str = "RGB", **options) -> bytes:
    file = BytesIO()
    Image.new(mode, (width, height)).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header_only_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def after_header(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


def after_start(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def fault(data: bytes) -> str:
    with pytest.raises(ImageFault) as raised:
        inspect(data)
    return str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "aGk+Pz8/",
        "aGk+Pz8/\n",
        " aGk+\r\n\tPz8/ ",
        "data:image/png;base64,aGk+Pz8/",
        "DATA:image/jpeg;charset=utf-8;BASE64,aGk+Pz8/",
        "\n data:image/png;base64,\naGk+Pz8/",
    ],
)
def test_base64_is_read_with_or_without_a_prefix_and_line_breaks(text: str) -> None:
    assert decode(text) == b"hi>???"


@pytest.mark.parametrize(
    "text",
    [
        "aGk-Pz8_",
        "Q",
        "QQ",
        "QQ=",
        "QQQ",
        "QQQQ=",
        "QQQQ==",
        "QQQQ====",
        "Q===",
        "====",
        "QQ==QQ==",
        "Q=Q=",
        "QQ=Q",
        "QQ==.",
        "QQQ\0",
        "QQQ\u00e9",
        "QQQ\ud800",
        "data:text/plain;base64,QQ==",
        "data:image/png,QQ==",
        "data:image/png;base64,data:image/png;base64,QQ==",
        "QQQQ data:image/png;base64,QQQQ",
        "file:sha256:" + "a" * 64,
    ],
)
def test_anything_else_is_not_base64(text: str) -> None:
    with pytest.raises(ImageFault, match="not Base64"):
        decode(text)


@pytest.mark.parametrize("text", ["", " \n", "data:image/png;base64,"])
def test_no_text_is_no_picture(text: str) -> None:
    with pytest.raises(ImageFault, match="empty"):
        decode(text)


@given(st.binary(min_size=1, max_size=200))
def test_whatever_was_encoded_is_decoded(data: bytes) -> None:
    assert decode(base64.b64encode(data).decode()) == data
    assert decode(base64.encodebytes(data).decode()) == data


@pytest.mark.parametrize("size", [3 * 65536, 3 * 65536 + 1, 5 * 65536 + 2, 1024 * 1024])
def test_a_long_text_is_read_like_a_short_one(size: int) -> None:
    """It is read in steps, whatever line breaks do to them."""
    data = bytes(range(251)) * (size // 251) + bytes(size % 251)
    text = base64.b64encode(data).decode()
    assert encode(data) == text
    assert decode(text) == decode(base64.encodebytes(data).decode()) == data
    padded = text[: 256 * 1024 - 4] + "QQ==" + text[256 * 1024 :]
    if len(text) > 256 * 1024:
        with pytest.raises(ImageFault, match="not Base64"):
            decode(padded)


@given(st.text(st.sampled_from("QA+/=") | st.characters(exclude_categories=())))
def test_text_decodes_only_if_it_is_what_encoding_gives(text: str) -> None:
    try:
        data = decode(text)
    except ImageFault:
        return
    again = base64.b64encode(data).decode()
    assert len(again) == len("".join(text.split()))
    assert decode(again) == data


@pytest.mark.parametrize(("kind", "expected"), [("JPEG", ImageFormat.JPEG), ("PNG", ImageFormat.PNG)])
def test_the_facts_of_a_good_picture(kind: str, expected: ImageFormat) -> None:
    data = picture(kind, 400, 310)
    assert inspect(data) == ImageFacts(format=expected, width=400, height=310)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_pixel_is_fine(mode: str) -> None:
    assert inspect(picture("PNG", mode=mode)).format == "png"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_every_kind_of_jpeg_is_fine(mode: str, options: dict) -> None:
    assert inspect(picture("JPEG", mode=mode, **options)).format == "jpeg"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("width", "height"), [(300, 300), (750, 300), (300, 750), (1000, 400)])
def test_a_picture_on_the_edge_of_side_and_ratio_is_taken(kind: str, width: int, height: int) -> None:
    facts = inspect(picture(kind, width, height))
    assert (facts.width, facts.height) == (width, height)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("width", "height"), [(299, 300), (300, 299)])
def test_a_side_under_300_px_is_refused(kind: str, width: int, height: int) -> None:
    assert (
        fault(picture(kind, width, height))
        == f"The picture has {width} x {height} px; each side must have at least 300 px."
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("width", "height"), [(751, 300), (300, 751), (1001, 400)])
def test_a_ratio_beyond_two_and_a_half_is_refused(kind: str, width: int, height: int) -> None:
    assert (
        fault(picture(kind, width, height))
        == f"The picture has {width} x {height} px; its width to height must lie between 1:2.5 and 2.5:1."
    )


def test_ten_megabytes_are_taken_and_one_byte_more_is_not() -> None:
    png = picture("PNG")
    padding = bytes(MAX_BYTES - len(png) - 12)
    largest = after_header(png, chunk(b"paDd", padding))
    assert len(largest) == 10 * 1024 * 1024
    inspect(largest)
    assert (
        fault(after_header(png, chunk(b"paDd", padding + b"\0")))
        == "The picture has 10485761 bytes; at most 10 MB (10485760 bytes) are allowed."
    )


def test_25_megapixels_are_taken() -> None:
    assert inspect(picture("PNG", 5000, 5000, mode="1")).width == 5000


def test_more_than_25_megapixels_are_refused_before_they_are_decoded() -> None:
    """There are no pixels in this file: whoever decoded it would call it damaged."""
    assert (
        fault(header_only_png(5001, 5000))
        == "The picture has 5001 x 5000 px; at most 25 megapixels are allowed."
    )


def test_what_exceeds_the_budget_of_pixels_is_refused_before_it_is_decoded() -> None:
    budget = PixelBudget(400 * 400)
    assert inspect(picture("PNG", 400, 300), budget).width == 400
    with pytest.raises(ImageFault, match="more than 100 megapixels together; send it smaller or as a URL"):
        inspect(header_only_png(400, 300), budget)
    assert budget.left == 400 * 100


def test_damaged_pictures_use_the_budget_up_too() -> None:
    """They may cost as much as whole ones."""
    budget = PixelBudget()
    with pytest.raises(ImageFault, match="damaged"):
        inspect(header_only_png(400, 300), budget)
    assert budget.left == 100_000_000 - 400 * 300


def test_a_decompression_bomb_is_refused_without_a_warning() -> None:
    assert "at most 25 megapixels" in fault(header_only_png(2**31 - 1, 2**31 - 1))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"])
def test_other_formats_are_refused(kind: str) -> None:
    assert fault(picture(kind)) == "The picture is neither a JPEG nor a PNG."


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"<svg/>", b"\x89PNG\r\n"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    assert fault(data) == "The picture is neither a JPEG nor a PNG."


def test_an_animated_png_is_refused() -> None:
    frames = [Image.new("L", (300, 300), shade) for shade in (0, 255)]
    file = BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert fault(file.getvalue()) == "The picture is animated; only still pictures are allowed."


def test_a_photo_with_further_pictures_behind_it_is_a_jpeg() -> None:
    """Phones append depth maps and previews (CIPA DC-007, "Multi-Picture Format")."""
    file = BytesIO()
    Image.new("RGB", (300, 300)).save(
        file, "MPO", save_all=True, append_images=[Image.new("RGB", (20, 20))] * MAX_PARTS
    )
    assert inspect(file.getvalue()).format == "jpeg"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_cut_off_anywhere_is_refused(kind: str) -> None:
    data = picture(kind)
    inspect(data)
    for length in range(8, len(data), 7 if kind == "JPEG" else 1):
        assert "damaged or incomplete" in fault(data[:length]), length


@pytest.mark.parametrize("place", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_flipped_bit_in_a_png_is_noticed(place: bytes) -> None:
    """In a palette only the checksum tells."""
    data = bytearray(picture("PNG", mode="P"))
    data[data.index(place) + 4] ^= 1
    assert "The picture is damaged or incomplete: it cannot be decoded." in fault(bytes(data))


def test_a_jpeg_part_that_denies_its_own_length_is_damage() -> None:
    assert "damaged" in fault(after_start(picture("JPEG"), b"\xff\xe1\0\1"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixels_that_lie_about_themselves_are_damage(kind: str) -> None:
    good = picture(kind)
    hollow = header_only_png(300, 300) if kind == "PNG" else good[: good.index(b"\xff\xda")] + b"\xff\xd9"
    assert fault(hollow) == "The picture is damaged or incomplete: it cannot be decoded."


def test_all_that_is_wrong_is_said_at_once() -> None:
    bad = after_header(header_only_png(200, 600), chunk(b"acTL", bytes(8)), chunk(b"paDd", bytes(MAX_BYTES)))
    message = fault(bad)
    for part in ("at most 10 MB", "animated", "at least 300 px", "between 1:2.5 and 2.5:1"):
        assert part in message


def test_a_small_picture_is_also_told_that_it_is_damaged() -> None:
    message = fault(picture("PNG", 200, 200)[:-20])
    assert "at least 300 px" in message
    assert "damaged" in message


def test_a_jpeg_of_countless_scans_is_refused_at_once() -> None:
    """Each scan of a progressive JPEG may be a few bytes and cost a pass over all its pixels."""
    jpeg = picture("JPEG", 5000, 5000, mode="L", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    assert fault(jpeg[:-2] + scan * 100_000 + b"\xff\xd9") == (
        "The picture is built of more than 100 tables and scans."
    )


def test_a_jpeg_may_have_a_hundred_parts() -> None:
    jpeg = picture("JPEG")
    parts = jpeg.count(b"\xff\xdb") + jpeg.count(b"\xff\xc4") + len(("frame", "scan"))
    restart_interval = b"\xff\xdd\0\4\0\0"
    assert inspect(after_start(jpeg, restart_interval * (100 - parts)))
    assert "more than 100" in fault(after_start(jpeg, restart_interval * (101 - parts)))


def test_metadata_is_neither_read_nor_judged() -> None:
    """Pillow would spend seconds on these, warn of them, or refuse the picture for them."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken"
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert inspect(after_start(picture("JPEG"), segment * 1000)).format == "jpeg"
    bomb = zlib.compress(bytes(80_000_000))
    chunks = chunk(b"zTXt", b"a\0\0" + bomb), chunk(b"iCCP", b"a\0\0" + bomb), chunk(b"tEXt", b"a")
    assert inspect(after_header(picture("PNG"), *chunks)).format == "png"


JPEG, PNG = picture("JPEG", progressive=True), picture("PNG", mode="P")


@given(
    st.sampled_from([JPEG, PNG]),
    st.lists(st.tuples(st.integers(0, 3999), st.integers(0, 3), st.binary(max_size=8)), max_size=4),
)
@example(b"\xff\xd8\xff", [])
@example(PNG_SIGNATURE, [])
@example(header_only_png(0, 300), [])
@example(header_only_png(300, 0), [])
def test_damage_of_any_kind_ends_in_a_fault_or_a_picture(
    data: bytes, damages: list[tuple[int, int, bytes]]
) -> None:
    for position, length, replacement in damages:
        at = position % (len(data) + 1)
        data = data[:at] + replacement + data[at + length :]
    try:
        inspect(data)
    except ImageFault as refusal:
        assert str(refusal)  # noqa: PT017
