"""Where a pretrained model's files are, and what identifies them."""

import errno
import fcntl
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gdacli.artifacts import TEMPORARY_PREFIX, new_file, sha256_bytes, sha256_file
from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.rng import digest
from gdacli.store import local_work_folder, open_location

PIN = "model.json"
"""Written by `gdacli fit`: the files that the settings name, where they were found, and their hashes."""

PIPELINE = ["model_index.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors"]
"""The files of a model in diffusers' layout."""

SINGLE = ["*.json", "*.txt", "*.safetensors"]
"""The files of a model in transformers' layout."""

_FILES = {"mapping": ["*.pt2"], "lora": ["*.safetensors"], "fractals": ["*.png", "*.jpg", "*.jpeg", "*.webp"]}
"""Of each of `generators.FILES` but the model: what is taken where it is a folder or a repository of the Hub."""

_UNWANTED = ("*.fp16.safetensors", "*non_ema*")

_TEXTS = ("*.json", "*.txt", "*.model")
_PLAIN = ("model", "model-*-of-?????", "diffusion_pytorch_model", "diffusion_pytorch_model-*-of-?????")

CHECKER_PARTS = ("safety_checker", "feature_extractor")

UNUSED_PARTS = ("watermarker", "image_encoder")
"""Parts of a pipeline through which no image goes here."""


_HUB_PAGE = re.compile(r"https?://huggingface\.co/(?!.*/resolve/)|hf://")
_WEIGHTS = (".safetensors", ".pt", ".pt2", ".pth", ".ckpt", ".bin")


def locate(
    model: str, revision: str | None, key: str, files: Sequence[str], unwanted: Sequence[str] = _UNWANTED
) -> Path:
    """Return where a model's files are: the folder or the file itself, or what the Hub's cache holds, or gets now.

    Args:
        model: a local folder or file, a Hub id, or the URL of a file.
        revision: of the Hub id; None is its newest.
        key: of params.yaml, for messages.
        files: PIPELINE, SINGLE or other patterns.
        unwanted: patterns of those that are not taken.

    Raises:
        GdaError: neither here, nor in the cache, nor reachable.
    """
    if "://" in model:
        if _HUB_PAGE.match(model):
            raise GdaError(f"{key}: found {model}, a page of the Hub; allowed: its id, such as owner/name")
        return download(model, key)
    folder = Path(model).expanduser()
    if folder.exists():
        return folder
    if folder.is_absolute() or model.startswith(".") or folder.suffix in _WEIGHTS:
        raise GdaError(f"{key}: {folder} does not exist here: name a folder that this machine sees, or a Hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(model, revision=revision, allow_patterns=list(files), ignore_patterns=list(unwanted))
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        at = f" --revision {revision}" if revision else ""
        raise GdaError(
            f"{key}: found {model!r}, which is no local folder and cannot be had from the Hub "
            f"({type(error).__name__}): check the id, or run `hf download {model}{at}` where there is a network"
        ) from error


def locate_model(
    model: str, revision: str | None, variant: str | None, safety_checker: bool
) -> tuple[Path, Sequence[str]]:
    """Return where a generator's model is, and patterns of the files of it that are used.

    Of a model in diffusers' layout these are the index and the files of its parts, the weights in one form; of another
    folder all its files; of another repository of the Hub what PIPELINE and SINGLE say.

    Args:
        model: a local folder or file, or a Hub id.
        revision: of the Hub id.
        variant: of the weights; a part that does not have it is taken in its plain form.
        safety_checker: whether the model's own is among the parts, where it has one.

    Raises:
        GdaError: as for `locate`, or there is no such variant.
    """
    key = "generate.model"
    folder = locate(model, revision, key, ["model_index.json"])
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        named = [name for name, value in index.items() if isinstance(value, list) and value and value[0]]
    except (OSError, ValueError, AttributeError):  # the backend says what is wrong with it, or reads it its own way
        if Path(model).expanduser().exists():
            return folder, ["**/*"]
        patterns = [*PIPELINE, *SINGLE]
        return locate(model, revision, key, patterns, ()), patterns
    parts = [name for name in named if name not in UNUSED_PARTS and (safety_checker or name not in CHECKER_PARTS)]
    patterns = ["model_index.json", *(f"{part}/{text}" for part in parts for text in _TEXTS)]
    if variant:
        of_variant = {part: [f"{part}/*.{variant}{end}.safetensors" for end in ("", "-*")] for part in parts}
        locate(model, revision, key, [*patterns, *(each for some in of_variant.values() for each in some)], ())
        having = [part for part in parts if has_variant(folder / part, variant)]
        if not having:
            raise GdaError(f"generate.variant: found {variant!r}, of which {model} has no weights: leave it out")
        patterns += [each for part in having for each in of_variant[part]]
        parts = [part for part in parts if part not in having]
    patterns += [f"{part}/{stem}.safetensors" for part in parts for stem in _PLAIN]
    return locate(model, revision, key, patterns, ()), patterns


def has_variant(part: Path, variant: str) -> bool:
    """Return whether the folder of a part has weights of a variant, in one file or in several."""
    return any(any(part.glob(f"*.{variant}{end}.safetensors")) for end in ("", "-*"))


def pin_files(
    files: Mapping[str, str],
    revision: str | None,
    variant: str | None,
    safety_checker: bool,
    kind: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what `model.json` says of the files that a backend's settings name.

    Args:
        files: option -> a folder, a file, a Hub id or the URL of a file.
        revision, variant, safety_checker: of the model; see `locate_model`.
        kind: what the model must be: `pipeline`, a folder in diffusers' layout, or `file`; None is either.

    Raises:
        GdaError: one cannot be had, or is a folder without such files, or a folder has a revision, or the model is of
            another kind.
    """
    model = files.get("model")
    if revision is not None and model is not None and ("://" in model or Path(model).expanduser().exists()):
        raise GdaError(f"generate.revision: found {revision!r}, but {model} is no Hub id: leave it out")
    pins: dict[str, dict[str, Any]] = {}
    for option, name in files.items():
        of_model = {"revision": revision, "variant": variant, "safety_checker": safety_checker}
        pin: dict[str, Any] = {"name": name, **(of_model if option == "model" else {"revision": None})}
        path, digested = _found(option, pin, pin["revision"])
        if option == "model" and kind == "pipeline" and not (path / "model_index.json").is_file():
            raise GdaError(
                f"generate.model: {path} holds no model_index.json; allowed: a folder in diffusers' layout, or a Hub id"
            )
        if option == "model" and kind == "file" and not path.is_file():
            raise GdaError(f"generate.model: {path} is a folder; allowed: the file of the weights, or its URL")
        pins[option] = {
            **pin,
            "commit": path.name if path.parent.name == "snapshots" else None,
            "sha256": digested,
        }
    return pins


def locate_pinned(pins: Mapping[str, Mapping[str, Any]]) -> dict[str, Path]:
    """Return where the pinned files are on this machine, once they are known to be the pinned ones.

    Raises:
        GdaError: one is not here or has other bytes.
    """
    paths = {}
    for option, pin in pins.items():
        paths[option], digested = _found(option, pin, pin["commit"] or pin["revision"])
        if digested != pin["sha256"]:
            raise GdaError(
                f"generate.{option}: {paths[option]} has other bytes than `gdacli fit` wrote down: run it again "
                "(where DVC runs it: `dvc repro --force --single-item fit`)"
            )
    return paths


def _found(option: str, pin: Mapping[str, Any], revision: str | None) -> tuple[Path, str]:
    """Return where a pinned thing is, and the hash of what is used of it."""
    if option == "model":
        path, patterns = locate_model(pin["name"], revision, pin["variant"], pin["safety_checker"])
        if path.is_dir() and not any(next(path.glob(pattern), None) for pattern in patterns):
            raise GdaError(f"generate.model: {path} holds none of {', '.join(patterns)}: name another folder")
        return path, weights_digest(path, patterns, ())
    path = locate(pin["name"], revision, f"generate.{option}", _FILES[option], ())
    if path.is_dir() and not any(next(path.glob(pattern), None) for pattern in _FILES[option]):
        raise GdaError(f"generate.{option}: {path} holds none of {', '.join(_FILES[option])}: name another folder")
    return path, weights_digest(path, _FILES[option], ())


def weights_digest(folder: Path, files: Sequence[str], unwanted: Sequence[str] = _UNWANTED) -> str:
    """Return the hash of a model's files, their names and their bytes; of one file, of its bytes.

    Args:
        folder: of `locate`.
        files, unwanted: as for `locate`.
    """
    if folder.is_file():
        return sha256_file(folder)
    found = sorted({path for pattern in files for path in folder.glob(pattern) if path.is_file()})
    found = [path for path in found if not any(path.relative_to(folder).match(each) for each in unwanted)]
    return digest({path.relative_to(folder).as_posix(): sha256_file(path) for path in found})


def download(url: str, key: str) -> Path:
    """Return a file that the user's cache keeps, downloaded once.

    Args:
        url: of fsspec: http(s)://, file://, s3://...
        key: of params.yaml, for messages.

    Raises:
        GdaError: it cannot be downloaded; nothing half-written is left.
    """
    shown = re.sub(r"//[^/@]*@", "//", url.partition("?")[0])  # without what may be secret
    folder = local_work_folder() / "models"
    path = folder / (sha256_bytes(url.encode())[:32] + Path(shown).suffix)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that processes that begin together download it once
        for left in folder.glob(f"{TEMPORARY_PREFIX}{path.name}-*"):  # of one that was killed
            left.unlink()
        if not path.exists():
            with new_file(path) as temporary:
                _fetch(url, shown, key, temporary)
    return path


def _fetch(url: str, shown: str, key: str, target: Path) -> None:
    from fsspec.callbacks import Callback

    source: Any = open_location(url)
    try:
        size = source.fs.size(source.path)
        total = max(1, (size or 0) >> 20)
        with progress(f"downloading {shown}", total, "MB") as advance:
            reported = 0

            def report(size: int | None, value: int, **_: Any) -> None:
                nonlocal reported
                done = min(value >> 20, total - 1)
                if done > reported:
                    advance(done - reported)
                    reported = done

            source.fs.get_file(source.path, str(target), callback=Callback(hooks={"progress": report}))
            advance(total - reported)
    except Exception as error:  # each kind of place has its own
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        cause = error.__cause__ or error  # whose text may name the whole URL
        reason = getattr(cause, "strerror", None) or getattr(cause, "message", None)
        said = f"{type(cause).__name__}: {reason}" if reason else type(cause).__name__
        raise GdaError(
            f"{key}: {shown} cannot be downloaded ({said}): check the URL, or download it elsewhere and name the file"
        ) from error
    if size is not None and target.stat().st_size != size:
        raise GdaError(f"{key}: {shown} was cut short: found {target.stat().st_size} bytes of {size}: run it again")
