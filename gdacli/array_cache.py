"""Arrays that are dear to compute, kept in `.npz` files by what they were computed from."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gdacli.artifacts import new_file
from gdacli.console import say


def cached_arrays(
    folder: Path, digest: str, names: set[str], compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the arrays of `<folder>/<digest>.npz`; compute and keep them if the file is not there or is damaged.

    Args:
        folder: of the cache; made if it is missing.
        digest: a hash of all that determines the arrays: data, model, layer, settings.
        names: of the arrays, as `compute` returns them; a file with others counts as damaged.
        compute: what makes them. What it raises is passed on, and nothing is kept.
    """
    path = folder / f"{digest}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}  # zip checks the sum of each as it is read
        if arrays.keys() == names:
            return arrays
        problem = f"found {', '.join(sorted(arrays)) or 'nothing'}, expected {', '.join(sorted(names))}"
    except FileNotFoundError:
        problem = ""
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        problem = " ".join(str(error).split())
    if problem:
        say(f"{path}: damaged ({problem}); it is computed again")
    arrays = compute()
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return arrays
