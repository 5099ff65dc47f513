"""Images and videos on disk: whole or not at all, found by content, named for people.

Stage: below the engine. Comes in: the bytes of one. Goes out: an `ImageRecord` whose file is on
disk. Each is written once, as `.nbimg/objects/<sha256>`, and linked under its readable name, so
that a renamed file loses nothing and costs no second copy. Must not: decide what is made.

A name and its object are one file, which its owner may edit in place: a read-only one would be in their
way, and a copy would double what is on disk. So an object proves what it is before it is given out. To
read 1,000 images for that takes seconds: what we write is *sealed*, its time of modification has a fraction
of a second that belongs to its bytes. Who edits it breaks the seal, and then it is read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from nbimg.errors import ImageInputError, ResultDamagedError, ResultMissingError, StoreWriteError
from nbimg.media import pixels, video
from nbimg.store.names import file_name
from nbimg.store.provenance import embed
from nbimg.types import EncodedImage, ImageRecord, InputImage

__all__ = ["Store"]

_HIDDEN = ".nbimg"
_SECOND_NS = 10**9


class Store:
    """The output folder and what nbimg keeps inside it.

    Args:
        folder: Where the images go; made at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hidden = folder / _HIDDEN

    def ready(self) -> None:
        """Make the folders, before anything is paid for.

        Raises:
            StoreWriteError: When nothing can be written there.
        """
        with _clear(self.folder):
            self.hidden.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.hidden):
                pass

    def put(
        self,
        image: EncodedImage,
        template: str | None,
        values: Mapping[str, object],
        *,
        variant: int | None = None,
        text: Mapping[str, str] | None = None,
        cover: bytes | None = None,
    ) -> ImageRecord:
        """Write an image or a video; it is whole on disk when this returns.

        Args:
            image: The bytes: of any format that Pillow reads, or an MP4 or WebM.
            template: Of the file name, see `nbimg.store.names`.
            values: What its fields stand for.
            variant: 1-based number among several outputs of one task.
            text: How it was made, stored in the image where its format has room.
            cover: A picture that stands for a video, where there is one.

        Raises:
            ImageInputError: When the bytes are no whole image or video.
            StoreWriteError: When they cannot be written.
        """
        if _is_video(image.data):
            record = self._put_video(image, template, values, variant)
            if cover is not None:
                self._keep(self._thumb_path(record, "cover"), cover)
            return record
        probe = pixels.probe(image.data)
        name = file_name(template, values, pixels.EXTENSIONS[probe.mime], variant)
        picture = pixels.decode(image.data, name=name.name)  # truncated images must not pass
        data, mime = image.data, probe.mime
        wanted = pixels.MIMES.get(name.suffix.lower(), mime)
        if wanted != mime:
            try:
                data, mime = pixels.encode(picture, wanted), wanted
            except ImageInputError:  # not a format that nbimg writes, or too large for it
                name = name.with_name(name.name + pixels.EXTENSIONS[mime])
            else:
                with _clear(self.folder):
                    self._object(image.data, probe.mime)  # the bytes as they came
        data = embed(data, text or {})
        sha256 = hashlib.sha256(data).hexdigest()
        with _clear(self.folder):
            path = self._named(self._object(data, mime, sha256), self.folder / name, sha256)
        return ImageRecord(
            path=path,
            url=image.url,
            mime=mime,
            width=probe.width,
            height=probe.height,
            sha256=sha256,
            seed=image.seed,
        )

    def _put_video(
        self,
        image: EncodedImage,
        template: str | None,
        values: Mapping[str, object],
        variant: int | None,
    ) -> ImageRecord:
        """Write a video as it came: nothing here could make another format of it."""
        probe = video.probe(image.data)
        extension = pixels.EXTENSIONS[probe.mime]
        name = file_name(template, values, extension, variant)
        if name.suffix.lower() != extension:
            name = name.with_name(name.name + extension)
        sha256 = hashlib.sha256(image.data).hexdigest()
        with _clear(self.folder):
            stored = self._object(image.data, probe.mime, sha256)
            path = self._named(stored, self.folder / name, sha256)
        return ImageRecord(
            path=path,
            url=image.url,
            kind="video",
            mime=probe.mime,
            width=probe.width,
            height=probe.height,
            sha256=sha256,
            seed=image.seed,
        )

    def holds(self, image: ImageRecord) -> bool:
        """Whether the file of an image is there, with the bytes that were written."""
        stored = self._object_path(image.sha256, image.mime)
        return image.path is not None and _same(image.path, stored, image.sha256)

    def again(
        self,
        image: ImageRecord,
        template: str | None,
        values: Mapping[str, object],
        *,
        variant: int | None = None,
    ) -> ImageRecord:
        """Give an image that is in the store the name that it should have now.

        Args:
            image: What `put` gave.
            template: Of the file name.
            values: What its fields stand for.
            variant: 1-based number among several outputs of one task.

        Raises:
            ResultMissingError: When the store does not have it any more.
            ResultDamagedError: When it was edited.
            StoreWriteError: When it cannot be written.
        """
        stored = self._object_path(image.sha256, image.mime)
        if not stored.is_file():
            raise ResultMissingError(f"{stored} is gone.")
        if not _holds(stored, image.sha256):
            raise ResultDamagedError(f"{stored} was changed after it was written.")
        name = file_name(template, values, pixels.EXTENSIONS[image.mime], variant)
        if pixels.MIMES.get(name.suffix.lower(), image.mime) != image.mime:
            data = self.get(image.sha256, image.mime)
            encoded = EncodedImage(data, seed=image.seed, url=image.url)
            return self.put(encoded, template, values, variant=variant)
        with _clear(self.folder):
            path = self._named(stored, self.folder / name, image.sha256)
        return replace(image, path=path)

    def take(self, data: bytes, source: str) -> InputImage:
        """Keep an input image, or a video that a model takes in, by its content.

        Args:
            data: Upright and without location data, see `nbimg.media.inputs`.
            source: What the user gave, for captions.

        Raises:
            ImageInputError: When the bytes are no image.
            StoreWriteError: When it cannot be written.
        """
        is_video = _is_video(data)
        probe = video.probe(data, name=source) if is_video else pixels.probe(data, name=source)
        with _clear(self.folder):
            path = self._object(data, probe.mime)
        sha256 = hashlib.sha256(data).hexdigest()
        return InputImage(sha256, probe.mime, probe.width, probe.height, str(path), source)

    def thumb(self, record: ImageRecord, side_px: int) -> bytes | None:
        """Return a small WebP of an image, or a poster of a video, made once; None where there is no file.

        Args:
            record: The image or video.
            side_px: Its longer side; a smaller image keeps its own size.
        """
        if record.path is None:
            return None
        cached = self._thumb_path(record, f"{side_px}.webp")
        with contextlib.suppress(OSError):
            return cached.read_bytes()
        try:
            if record.kind == "video":
                data = self._poster(record, side_px)
            else:
                data = pixels.thumbnail(record.read(), side_px=side_px)
        except (ResultMissingError, ImageInputError):
            return None
        if data is not None:
            self._keep(cached, data)
        return data

    def _poster(self, record: ImageRecord, side_px: int) -> bytes | None:
        """Draw the poster of a video, over its cover where there is a good one."""
        if record.path is None or not record.path.is_file():
            return None
        with contextlib.suppress(OSError, ImageInputError):
            cover = self._thumb_path(record, "cover").read_bytes()
            return pixels.poster(record.width, record.height, cover=cover, side_px=side_px)
        return pixels.poster(record.width, record.height, side_px=side_px)

    def _thumb_path(self, record: ImageRecord, what: str) -> Path:
        return self.hidden / "thumbs" / f"{record.sha256}-{what}"

    @staticmethod
    def _keep(path: Path, data: bytes) -> None:
        """Keep what can be made again, or done without."""
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data, sync=False)

    def get(self, sha256: str, mime: str) -> bytes:
        """Return the bytes of an object.

        Raises:
            ResultMissingError: When it is not there.
            ResultDamagedError: When it is not what was written.
        """
        path = self._object_path(sha256, mime)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ResultMissingError(f"{path} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ResultDamagedError(f"{path} was changed after it was written.")
        return data

    def _object_path(self, sha256: str, mime: str) -> Path:
        return self.hidden / "objects" / sha256[:2] / (sha256 + pixels.EXTENSIONS.get(mime, ".bin"))

    def _object(self, data: bytes, mime: str, sha256: str | None = None) -> Path:
        sha256 = sha256 or hashlib.sha256(data).hexdigest()
        path = self._object_path(sha256, mime)
        if not _holds(path, sha256):  # a link to it may have been edited in place
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data, sync=True)
        _seal(path, sha256)
        return path

    @staticmethod
    def _named(stored: Path, target: Path, sha256: str) -> Path:
        """Give an object its readable name; a file with other bytes keeps its own."""
        target.parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            path = target if number == 1 else target.with_stem(f"{target.stem}-{number}")
            try:
                os.link(stored, path)
                return path
            except FileExistsError:
                if _same(path, stored, sha256):
                    return path
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT):
                    raise
                if _copied(stored, path, sha256):  # a file system without links
                    return path
                if _same(path, stored, sha256):
                    return path
        raise StoreWriteError(f"{target.parent} has too many files named {target.name}.")


def _is_video(data: bytes) -> bool:
    return (pixels.sniff(data) or "").startswith("video/")


def _holds(path: Path, sha256: str) -> bool:
    """Whether a file has these bytes: its seal says so, or it is read."""
    try:
        if _sealed(path.stat(), sha256):
            return True
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False


def _sealed(stat: os.stat_result, sha256: str) -> bool:
    return stat.st_mtime_ns % _SECOND_NS // 1000 == _fraction_us(sha256, stat.st_size)


def _fraction_us(sha256: str, size_bytes: int) -> int:
    """Return the microseconds of a seal; never 0, which is what a coarse clock leaves."""
    return 1 + (int(sha256[:15], 16) + size_bytes) % 999_999


def _seal(path: Path, sha256: str) -> None:
    """Seal a file that has these bytes; where times are coarser it is read each time instead."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        if not _sealed(stat, sha256):
            second_ns = stat.st_mtime_ns // _SECOND_NS * _SECOND_NS
            sealed_ns = second_ns + _fraction_us(sha256, stat.st_size) * 1000
            os.utime(path, ns=(stat.st_atime_ns, sealed_ns))


def _same(path: Path, stored: Path, sha256: str) -> bool:
    """Whether a file has the bytes of an object; most that have not are told by their size."""
    try:
        same_size = path.stat().st_size == stored.stat().st_size
    except OSError:
        return False
    return same_size and _holds(path, sha256)


def _copied(stored: Path, path: Path, sha256: str) -> bool:
    """Copy an object to a name that is free; False when it is not."""
    try:
        path.open("xb").close()  # takes the name, as a link would
    except FileExistsError:
        return False
    try:
        _write(path, stored.read_bytes(), sync=True)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    _seal(path, sha256)
    return True


def _write(path: Path, data: bytes, *, sync: bool) -> None:
    """Write a file whole: under a temporary name, flushed to the disk, then renamed."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_UMASK)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_UMASK = _read_umask()


@contextlib.contextmanager
def _clear(folder: Path) -> Iterator[None]:
    """Say in one line why a folder cannot be written."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message, hint = (
                f"the disk of {folder} is full.",
                "Free some room and run the cell again.",
            )
        else:
            message = f"{where} cannot be written: {error.strerror or error}."
            hint = "Choose another folder: %config NbImg.output_dir = '…'"
        raise StoreWriteError(message, hint=hint) from error
