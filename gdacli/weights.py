"""Where a pretrained model's files are, and what identifies them."""

from collections.abc import Sequence
from pathlib import Path

from gdacli.artifacts import sha256_file
from gdacli.errors import GdaError
from gdacli.rng import digest

PIN = "model.json"
"""Written by `gdacli fit` for a pretrained model: its name, revision and hash."""

PIPELINE = ["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
"""The files of a model in diffusers' layout."""

SINGLE = ["*.json", "*.txt", "*.safetensors"]
"""The files of a model in transformers' layout."""

_UNWANTED = ["*.fp16.safetensors", "*non_ema*", "safety_checker/*"]


def locate(model: str, revision: str | None, key: str, files: Sequence[str]) -> Path:
    """Return the folder of a model: itself, or what the Hub's cache holds, downloaded if need be.

    Args:
        model: a local folder or a Hub id.
        revision: of the Hub id; None is its newest.
        key: of params.yaml, for messages.
        files: PIPELINE or SINGLE.

    Raises:
        GdaError: neither a folder, nor in the cache, nor reachable.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.startswith("."):
        raise GdaError(f"{key}: {folder} does not exist here: name a folder that this machine sees, or a Hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(files), ignore_patterns=_UNWANTED))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        at = f" --revision {revision}" if revision else ""
        raise GdaError(
            f"{key}: found {model!r}, which is no local folder and cannot be had from the Hub "
            f"({type(error).__name__}): check the id, or run `hf download {model}{at}` where there is a network"
        ) from error


def weights_digest(folder: Path, files: Sequence[str]) -> str:
    """Return the hash of a model's files, their names and their bytes; `files` as for `locate`."""
    found = sorted({path for pattern in files for path in folder.glob(pattern)})
    found = [path for path in found if not any(path.relative_to(folder).match(each) for each in _UNWANTED)]
    return digest({path.relative_to(folder).as_posix(): sha256_file(path) for path in found})
