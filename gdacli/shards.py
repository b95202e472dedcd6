"""WebDataset shards: tar files whose bytes depend on nothing but their samples."""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdacli.artifacts import new_file, sha256_file
from gdacli.errors import GdaError
from gdacli.images import EXTENSIONS

IMAGE_EXTENSIONS = frozenset({*EXTENSIONS.values(), "jpeg"})

_WINDOW_BYTES = 4096  # in one of our shards the headers of a label, its JSON and the next image lie this close


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a shard, still encoded."""

    key: str
    label: int
    image: bytes
    extension: str
    meta: dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """A finished shard: its file name, SHA-256 and number of samples."""

    name: str
    sha256: str
    count: int


def write_shard(path: Path, samples: Iterable[Sample]) -> Shard:
    """Write samples as `<key>.<extension>`, `<key>.cls` and `<key>.json` in the order given.

    Member times, owners and modes are fixed, so that equal samples give equal bytes. (`webdataset.TarWriter` would do
    with `mtime=0`, but importing it imports torch, which takes seconds.)

    Raises:
        GdaError: a key holds a dot or a slash, which WebDataset readers would split.
    """
    count = 0
    with new_file(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            if "." in sample.key or "/" in sample.key:
                raise GdaError(f"{path.name}: key {sample.key!r}: a key holds no '.' and no '/'")
            meta = json.dumps(sample.meta, sort_keys=True, ensure_ascii=False).encode()
            _add(tar, f"{sample.key}.{sample.extension}", sample.image)
            _add(tar, f"{sample.key}.cls", str(sample.label).encode())
            _add(tar, f"{sample.key}.json", meta)
            count += 1
    return Shard(path.name, sha256_file(path), count)


def read_shard(path: Path) -> Iterator[Sample]:
    """Yield the samples of a shard in order, reading member by member; members of unknown kinds are passed over.

    Raises:
        GdaError: the file is missing, is no tar, is cut short, or a sample lacks its image or label.
    """
    try:
        if not _has_end_mark(path):
            raise tarfile.ReadError("it is cut short, the end mark is missing")
        with tarfile.open(path, "r:") as tar:
            key, parts = "", dict[str, bytes]()
            for member in tar:
                stem, _, extension = Path(member.name).name.partition(".")
                extension = extension.lower()
                if not member.isfile() or extension not in IMAGE_EXTENSIONS | {"cls", "json"}:
                    continue
                this = str(Path(member.name).with_name(stem))
                if this != key and parts:
                    yield _sample(path, key, parts)
                    parts = {}
                key = this
                content = tar.extractfile(member)
                parts[extension] = content.read() if content else b""
            if parts:
                yield _sample(path, key, parts)
    except FileNotFoundError:
        raise _missing(path) from None
    except (tarfile.TarError, EOFError) as error:
        raise GdaError(f"{path}: damaged tar file ({error}): make or pull it again") from error


def image_spans(path: Path) -> dict[str, tuple[int, int]]:
    """Find where the images of a shard lie without reading them: key -> offset and length in bytes.

    It goes from header to header, so a shard is indexed in the time of a few small reads per sample. Contents are not
    checked: who reads an image by its span compares its SHA-256.

    Raises:
        GdaError: the file is missing or no tar.
    """
    spans: dict[str, tuple[int, int]] = {}
    try:
        with path.open("rb", buffering=0) as file:
            position = start = 0
            window = b""
            while True:
                if not start <= position <= start + len(window) - tarfile.BLOCKSIZE:
                    start, window = position, os.pread(file.fileno(), _WINDOW_BYTES, position)
                header = window[position - start : position - start + tarfile.BLOCKSIZE]
                if not header.strip(b"\0"):  # the end mark, or the end of a file that is cut short
                    return spans
                name, size = _name_and_size(header)
                extension = name.rpartition("/")[2].partition(".")[2]
                position += tarfile.BLOCKSIZE
                if extension.lower() in IMAGE_EXTENSIONS and header[156:157] in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    spans[name[: len(name) - len(extension) - 1]] = position, size
                position += -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    except FileNotFoundError:
        raise _missing(path) from None
    except (ValueError, OSError) as error:
        raise GdaError(f"{path}: damaged tar file ({error}): make or pull it again") from error


def _name_and_size(header: bytes) -> tuple[str, int]:
    """Read the name and the size of a member from its ustar header of 512 bytes."""
    if header[257:262] != b"ustar":
        raise ValueError("a header is not where the one before it says")
    name, prefix = (field.split(b"\0", 1)[0].decode() for field in (header[:100], header[345:500]))
    return f"{prefix}/{name}" if prefix else name, int(header[124:136].strip(b" \0"), 8)


def _missing(path: Path) -> GdaError:
    return GdaError(f"{path} does not exist: run `dvc pull {path.parent}`, or make it again")


def _has_end_mark(path: Path) -> bool:
    """Say if the file ends in two blocks of zeros; without, `tarfile` takes any cut between members for the end."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
        return file.read() == bytes(2 * tarfile.BLOCKSIZE)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0, names empty, mode 0644
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _sample(path: Path, key: str, parts: dict[str, bytes]) -> Sample:
    extensions = sorted(parts.keys() & IMAGE_EXTENSIONS)
    if len(extensions) != 1 or "cls" not in parts:
        found = ", ".join(sorted(parts)) or "nothing"
        raise GdaError(f"{path}: sample {key!r}: found {found}; needs one image and a .cls")
    try:
        label = int(parts["cls"])
        meta = json.loads(parts.get("json", b"{}"))
    except ValueError as error:
        raise GdaError(f"{path}: sample {key!r}: .cls must be an integer and .json valid JSON ({error})") from error
    return Sample(key, label, parts[extensions[0]], extensions[0], meta)
