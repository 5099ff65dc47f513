"""Bytes in, pixels out, and back: the only place of the package that uses Pillow.

Stage: used wherever a picture is read, shrunk or written. Comes in: bytes that somebody else read.
Goes out: what they are, a decoded picture, or new bytes. Must not: open a file or a connection, or
import Pillow before it is needed (`%load_ext nbimg` stays fast).
"""

from __future__ import annotations

import io
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbimg.errors import ImageInputError

if TYPE_CHECKING:
    import PIL.Image

__all__ = [
    "EXTENSIONS",
    "MIMES",
    "Probe",
    "contact_sheet",
    "decode",
    "encode",
    "poster",
    "probe",
    "sniff",
    "thumbnail",
    "to_pil",
    "upright",
]

EXTENSIONS: Mapping[str, str] = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/tiff": ".tiff",
    "image/avif": ".avif",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
}
"""Media type → the extension that nbimg gives a file of it."""

MIMES: Mapping[str, str] = {
    **{extension: mime for mime, extension in EXTENSIONS.items()},
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".tif": "image/tiff",
}
"""Extension in lower case, with its dot → media type."""

MAX_PIXELS = 178_956_970  # 0.5 GB as RGB: what Pillow itself refuses
THUMB_SIDE_PX = 256
THUMB_SIDE_MIN_PX = 192
THUMB_BYTES = 11_000  # 14,700 as base64, which leaves 5,300 of the 20,000 that a tile may cost

_PILLOW_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"BM.{12}[\x0c\x28\x38\x40\x6c\x7c]\0", re.DOTALL), "image/bmp"),
    (re.compile(rb"II\*\0|MM\0\*"), "image/tiff"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "image/avif"),
    (re.compile(rb"\x1aE\xdf\xa3"), "video/webm"),
)
_NOT_IMAGES = (
    (re.compile(rb"....ftyp(hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL), "a HEIC photo"),
    (re.compile(rb"....ftypM4[AB]", re.DOTALL), "a sound"),
    (re.compile(rb"....ftyp", re.DOTALL), "a video"),
    (re.compile(rb"\x1aE\xdf\xa3"), "a video"),
    (re.compile(rb"%PDF-"), "a PDF document"),
    (re.compile(rb"PK\x03\x04"), "a zip archive"),
    (re.compile(rb"\x1f\x8b"), "gzip data"),
    (
        re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg\b", re.IGNORECASE | re.DOTALL),
        "an SVG drawing",
    ),
    (
        re.compile(
            rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL
        ),
        "an HTML page",
    ),
    (re.compile(rb"\s*<\?xml"), "an XML document"),
    (re.compile(rb"\s*[\[{]\s*[\"\[{]"), "JSON text"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer"),
)
_HINTS = {
    "a HEIC photo": "Export it as JPEG or PNG first.",
    "a video": "Take a frame out of it first.",
    "an SVG drawing": "Export it as PNG first.",
    "an HTML page": "The address may need a login, or is the page around the image.",
    "a Git LFS pointer": "Fetch the file with: git lfs pull",
}
_warnings_lock = threading.Lock()  # `catch_warnings` changes the whole process


@dataclass(frozen=True, slots=True)
class Probe:
    """What the header of an image file says.

    Attributes:
        mime: Media type by its content, not by its name.
        width: Pixels as stored, before an EXIF orientation.
        height: Pixels as stored.
        animated: Whether it has more than one frame.
    """

    mime: str
    width: int
    height: int
    animated: bool = False


def sniff(data: bytes) -> str | None:
    """Return the media type by the first bytes alone, without Pillow; None where it is unknown.

    >>> sniff(b"GIF89a...")
    'image/gif'
    """
    for pattern, mime in _SIGNATURES:
        if pattern.match(data[:64]):
            return mime
    return "video/mp4" if data[4:8] == b"ftyp" and "video" in _describe(data) else None


def probe(data: bytes, *, name: str = "the image") -> Probe:
    """Read the header of an image: cheap, no pixels are decoded.

    Args:
        data: The whole file.
        name: What the error calls it.

    Raises:
        ImageInputError: When it is not an image that nbimg reads; the line says what it is.
    """
    with _opened(data, name) as image:
        animated = bool(getattr(image, "is_animated", False))
        return Probe(_mime_of(image), image.width, image.height, animated)


def decode(data: bytes, *, name: str = "the image") -> PIL.Image.Image:
    """Decode the first frame completely; nothing is read later.

    Returns:
        An image of shape (height, width) in the mode of the file, orientation not yet applied.

    Raises:
        ImageInputError: When it is no image, truncated, damaged or larger than `MAX_PIXELS`.
    """
    with _opened(data, name) as image:
        image.load()
    return image


def upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return a copy with the EXIF orientation applied and without metadata.

    Where it was taken, with what and when is gone; the colour profile stays, as pixels mean nothing
    without it.
    """
    from PIL import ImageOps

    turned = ImageOps.exif_transpose(image)
    plain = turned.copy()
    plain.info = {
        key: value for key, value in turned.info.items() if key in ("icc_profile", "transparency")
    }
    plain.getexif().clear()
    return plain


def encode(
    image: PIL.Image.Image,
    mime: str,
    *,
    text: Mapping[str, str] | None = None,
    quality: int = 95,
) -> bytes:
    """Write an image as PNG, JPEG or WebP.

    Args:
        image: Shape (height, width); transparency becomes white where the format has none.
        mime: `image/png`, `image/jpeg` or `image/webp`.
        text: For PNG: keyword → text, as tEXt, or iTXt where it is not Latin-1 (and for XMP).
        quality: 1 to 100 for JPEG and WebP.

    Raises:
        ImageInputError: When the format is another one, cannot hold `text`, or cannot hold a
            picture of this size.
    """
    options: dict[str, Any] = {}
    if image.info.get("icc_profile"):
        options["icc_profile"] = image.info["icc_profile"]
    if mime == "image/png":
        form, ready = "PNG", image if image.mode in _PNG_MODES else _displayable(image)
        options |= {"pnginfo": _png_text(text or {}), "compress_level": PNG_LEVEL}
    elif text:
        raise ImageInputError(f"{mime} has no text chunks.", hint="Only PNG carries text here.")
    elif mime == "image/jpeg":
        form, ready = "JPEG", _flat(_displayable(image))
        options |= {"quality": quality, "subsampling": 0 if quality >= 90 else 2}
    elif mime == "image/webp":
        form, ready = "WEBP", _displayable(image)
        options |= {"quality": quality, "method": 4}
    else:
        raise ImageInputError(f"nbimg does not write {mime}.", hint="It writes PNG, JPEG and WebP.")
    return _saved(ready, form, **options)


#: How hard a PNG is packed: Pillow's own 6 takes 1.2 to 2.3 times as long, for a file 0 to 8 % smaller.
PNG_LEVEL = 4
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def thumbnail(data: bytes, *, side_px: int = THUMB_SIDE_PX, max_bytes: int = THUMB_BYTES) -> bytes:
    """Shrink an image to a small WebP file: sharp first, then smaller, then coarser.

    Args:
        data: The whole file.
        side_px: The longer side of the result; a smaller picture keeps its own size.
        max_bytes: The result is not larger, except where 192 px at the lowest quality are.

    Returns:
        WebP, upright, without metadata; transparency is kept while it fits.

    Raises:
        ImageInputError: When the image cannot be decoded.
    """
    with _opened(data, "the image") as opened:
        opened.draft("RGB", (side_px * 2, side_px * 2))  # JPEG only: decodes at a fraction
        opened.load()
    picture = _displayable(_in_srgb(upright(opened)))
    longest = max(picture.size)
    sides = sorted({min(side, side_px, longest) for side in (side_px, 320, 256, 224)}, reverse=True)
    smallest = min(THUMB_SIDE_MIN_PX, side_px, longest)
    tries = [(side, quality) for side in sides for quality in (80, 68)]
    tries += [(smallest, quality) for quality in (60, 45, 30, 15, 1)]
    best = b""
    for shape in (picture, _flat(picture)) if picture.mode == "RGBA" else (picture,):
        best = _fitted(shape, tries, max_bytes)
        if len(best) <= max_bytes:
            break
    return best


def _fitted(picture: PIL.Image.Image, tries: Sequence[tuple[int, int]], max_bytes: int) -> bytes:
    """Return the first of the tries (side, quality) that fits, else the last."""
    first_px, best = 0, b""
    first_bytes = 0
    for side, quality in tries:
        # A smaller picture has more detail a pixel, so that its share of the area is a lower bound.
        bound = first_bytes * (side / first_px) ** 2 * quality / 110 if first_px else 0.0
        if bound > max_bytes and (side, quality) != tries[-1]:
            continue
        best = _saved(_shrunk(picture, side), "WEBP", quality=quality, method=4)
        if len(best) <= max_bytes:
            break
        if not first_px:
            first_px, first_bytes = side, len(best)
    return best


def poster(
    width: int, height: int, *, cover: bytes | None = None, side_px: int = THUMB_SIDE_PX
) -> bytes:
    """Draw what stands for a video: its cover, or else a plain ground, under the sign to play.

    Args:
        width: Of the video in pixels; 0 where it is not known.
        height: Of the video.
        cover: An encoded picture of it.
        side_px: The longer side of the result.

    Returns:
        WebP, of at most `THUMB_BYTES`.

    Raises:
        ImageInputError: When the cover cannot be decoded.
    """
    from PIL import Image

    if cover is None:
        scale = side_px / max(width, height) if width and height else side_px / 16
        size = (width, height) if width and height else (16, 9)
        ground = Image.new("RGB", [max(1, round(side * scale)) for side in size], _GROUND)
    else:
        ground = _flat(_displayable(_in_srgb(upright(decode(cover, name="the cover")))))
    ground = _shrunk(ground, side_px)
    sign = _play_sign(max(8, min(ground.size) // 3))
    place = ((ground.width - sign.width) // 2, (ground.height - sign.height) // 2)
    ground.paste(sign, place, sign)
    return _fitted(ground, [(side_px, 80), (side_px, 50), (THUMB_SIDE_MIN_PX, 15)], THUMB_BYTES)


_GROUND = (52, 56, 64)


def _play_sign(side_px: int) -> PIL.Image.Image:
    """A dark disc with a white triangle, smooth at its edges."""
    from PIL import Image, ImageDraw
    from PIL.Image import Resampling

    side = 4 * side_px
    sign = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    draw = ImageDraw.Draw(sign)
    draw.ellipse((0, 0, side - 1, side - 1), fill=(0, 0, 0, 150))
    x, y = side * 0.38, side * 0.28
    draw.polygon(((x, y), (x, side - y), (side * 0.76, side / 2)), fill=(255, 255, 255, 235))
    return sign.resize((side_px, side_px), Resampling.LANCZOS)


def contact_sheet(
    thumbs: Sequence[bytes],
    columns: int,
    *,
    side_px: int = 192,
    gap_px: int = 8,
    max_bytes: int | None = None,
) -> bytes:
    """Lay small pictures out in rows on white.

    Args:
        thumbs: Encoded pictures, in reading order.
        columns: How many in a row.
        side_px: The box of a picture; its longer side at most.
        gap_px: Between boxes and around them.
        max_bytes: Quality and size are lowered until it fits, down to boxes of 48 px.

    Returns:
        JPEG.

    Raises:
        ImageInputError: When there is no picture, or one cannot be decoded.
    """
    if not thumbs:
        raise ImageInputError("a contact sheet needs at least one picture.")
    pictures = [_flat(_displayable(decode(thumb, name="a thumbnail"))) for thumb in thumbs]
    side, sheet = min(side_px, max(max(picture.size) for picture in pictures)), b""
    if (
        max_bytes is not None
    ):  # a JPEG takes about a tenth of a byte a pixel: do not start far above
        side = min(side, max(48, round((max_bytes / len(pictures) / 0.1) ** 0.5)))
    while True:
        image = _sheet(pictures, max(1, columns), side, gap_px)
        for quality in (75, 50):
            sheet = _saved(image, "JPEG", quality=quality, optimize=True)
            if max_bytes is None or len(sheet) <= max_bytes:
                return sheet
        if side <= 48:
            return sheet
        side = max(48, side * 3 // 4)


def to_pil(value: Any) -> PIL.Image.Image:
    """Turn a PIL image or an array into a PIL image.

    Args:
        value: A PIL image (given back as it is), or an array of shape (height, width),
            (height, width, 1), (height, width, 3) or (height, width, 4): bool, uint8 from 0 to 255,
            or floats from 0 to 1. NumPy, torch, JAX: whatever converts to a NumPy array.

    Raises:
        ImageInputError: With the shape, type or range that does not fit.
    """
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    array = _as_array(value)
    shape, kind = tuple(array.shape), str(array.dtype)
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ImageInputError(
            f"an array of shape {shape} is not an image.", hint=_shape_hint(shape)
        )
    if kind == "bool":
        array = array.astype("uint8") * 255
    elif kind.startswith(("float", "bfloat")):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # NaN fails both
            raise ImageInputError(
                f"a {kind} array of shape {shape} has values from {low:g} to {high:g}.",
                hint="Floats must lie between 0 and 1.",
            )
        array = (array.astype("float32") * 255).round().astype("uint8")
    elif kind != "uint8":
        raise ImageInputError(
            f"an array of type {kind} and shape {shape} is not an image.",
            hint="Use uint8 from 0 to 255, or floats from 0 to 1.",
        )
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[shape[2] if len(shape) == 3 else 1]
    return Image.frombytes(mode, (shape[1], shape[0]), array.tobytes())


def _as_array(value: Any) -> Any:
    """Return a NumPy array without importing NumPy: the value brings it along."""
    if hasattr(value, "detach"):  # a torch tensor: off the graph and off the GPU
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    if not hasattr(value, "__array__"):
        raise ImageInputError(
            f"a {type(value).__name__} is not an image.",
            hint="Give a path, a URL, bytes, a PIL image or an array.",
        )
    return value.__array__()


def _shape_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[0] in (1, 3, 4) and 0 not in shape:
        return "The channels come first; move them last with .transpose(1, 2, 0)."
    if len(shape) == 4:
        return "It holds several images; pass them one by one."
    return "It must be (height, width), (height, width, 3) or (height, width, 4)."


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[PIL.Image.Image]:
    """Give the lazily opened image; whatever Pillow raises inside becomes one clear line."""
    from PIL import Image

    if not data:
        raise ImageInputError(f"{name} is empty (0 bytes).")
    if not set(_PILLOW_FORMATS) <= set(Image.OPEN):
        Image.init()
    formats = [form for form in _PILLOW_FORMATS if form in Image.OPEN]
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 90 to 179 million pixels: large, but allowed
            image = Image.open(io.BytesIO(data), formats=formats)
        _check_pixels(image.width, image.height, name)
        yield image
    except ImageInputError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, "") from error
    except MemoryError as error:
        raise ImageInputError(f"{name} does not fit into memory.") from error
    except Exception as error:  # Pillow's readers raise anything on damaged files
        raise _unreadable(data, name) from error


def _check_pixels(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width}x{height}, ")


def _too_large(name: str, size: str) -> ImageInputError:
    return ImageInputError(
        f"{name} is too large ({size}more than {MAX_PIXELS // 1_000_000} million pixels).",
        hint="Make it smaller first.",
    )


def _describe(data: bytes) -> str:
    """Return what bytes that are not an image are, or an empty string."""
    start = data[:1000]
    for pattern, words in _NOT_IMAGES:
        if pattern.match(start):
            return words
    if b"\0" not in start:
        try:
            start[:990].decode("utf-8", "strict" if len(start) < 990 else "ignore")
        except UnicodeDecodeError:
            return ""
        return "text" if start.isascii() else ""
    return ""


def _unreadable(data: bytes, name: str) -> ImageInputError:
    mime = sniff(data)
    if mime and mime.startswith("image/"):
        form = mime.removeprefix("image/").upper()
        if form == "AVIF":
            return ImageInputError(f"{name} is AVIF, and it cannot be decoded here.")
        return ImageInputError(
            f"{name} is a {form} file that is cut off or damaged ({len(data):,} bytes)."
        )
    words = _describe(data)
    if words:
        return ImageInputError(f"{name} is {words}, not an image.", hint=_HINTS.get(words))
    return ImageInputError(
        f"{name} is not an image that nbimg reads ({len(data):,} bytes).",
        hint="It reads PNG, JPEG, WebP, GIF, BMP, TIFF and AVIF.",
    )


def _mime_of(image: PIL.Image.Image) -> str:
    form = (image.format or "").lower()
    # MPO: a camera's JPEG with a preview; one text for all images of a kind
    return "image/jpeg" if form == "mpo" else sys.intern(f"image/{form}")


def _saved(image: PIL.Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, form, **options)
    except (OSError, ValueError) as error:
        raise ImageInputError(
            f"{image.width}x{image.height} pixels cannot be written as {form}: {error}."
        ) from error
    return buffer.getvalue()


def _png_text(text: Mapping[str, str]) -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for keyword, value in text.items():
        clean = value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
        if keyword.startswith("XML:"):  # XMP is defined as iTXt, whatever it holds
            info.add_itxt(keyword, clean)
        else:
            info.add_text(keyword, clean)
    return info


def _displayable(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return RGB, or RGBA where some pixel is transparent."""
    if image.mode.startswith("I;16") or image.mode == "I":  # Pillow would clip at 255
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A").getextrema()[0]
        return rgba if isinstance(alpha, int | float) and alpha < 255 else rgba.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _flat(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return RGB; transparent parts become white."""
    from PIL import Image

    if image.mode != "RGBA":
        return image
    ground = Image.new("RGB", image.size, (255, 255, 255))
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _in_srgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Convert from the image's colour profile: a small WebP carries none."""
    from PIL import ImageCms

    profile = image.info.pop("icc_profile", None)
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        out_mode = "RGB" if image.mode == "CMYK" else image.mode
        turned = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode=out_mode
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile is no reason to show nothing
    return turned or image


def _shrunk(image: PIL.Image.Image, side_px: int) -> PIL.Image.Image:
    from PIL.Image import Resampling

    small = image.copy()
    small.thumbnail((side_px, side_px), Resampling.LANCZOS, reducing_gap=3.0)
    return small


def _sheet(
    pictures: Sequence[PIL.Image.Image], columns: int, side_px: int, gap_px: int
) -> PIL.Image.Image:
    from PIL import Image

    small = [_shrunk(picture, side_px) for picture in pictures]
    columns = min(columns, len(small))
    wide, high = max(p.width for p in small), max(p.height for p in small)
    rows = -(-len(small) // columns)
    size = (columns * (wide + gap_px) + gap_px, rows * (high + gap_px) + gap_px)
    sheet = Image.new("RGB", size, (255, 255, 255))
    for place, picture in enumerate(small):
        x = gap_px + (place % columns) * (wide + gap_px) + (wide - picture.width) // 2
        y = gap_px + (place // columns) * (high + gap_px) + (high - picture.height) // 2
        sheet.paste(picture, (x, y))
    return sheet
