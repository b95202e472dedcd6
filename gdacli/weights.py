"""Where a pretrained model's files are, and what identifies them."""

from pathlib import Path

from gdacli.artifacts import sha256_file
from gdacli.errors import GdaError
from gdacli.rng import digest

PIN = "model.json"
"""Written by `gdacli fit` for a pretrained model: its name, revision and hash."""

_WANTED = ["*.json", "*.txt", "*.safetensors"]
_UNWANTED = ["*.fp16.safetensors", "*non_ema*", "safety_checker/*"]


def locate(model: str, revision: str | None, key: str) -> Path:
    """Return the folder of a model: itself, or what the Hub's cache holds, downloaded if need be.

    Args:
        model: a local folder or a Hub id.
        revision: of the Hub id; None is its newest.
        key: of params.yaml, for messages.

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
        return Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        at = f" --revision {revision}" if revision else ""
        raise GdaError(
            f"{key}: found {model!r}, which is no local folder and cannot be had from the Hub "
            f"({type(error).__name__}): check the id, or run `hf download {model}{at}` where there is a network"
        ) from error


def weights_digest(folder: Path) -> str:
    """Return the hash of a model's files, their names and their bytes."""
    files = sorted(file for pattern in _WANTED for file in folder.rglob(pattern))
    files = [file for file in files if not any(file.relative_to(folder).match(each) for each in _UNWANTED)]
    return digest({str(file.relative_to(folder)): sha256_file(file) for file in files})
