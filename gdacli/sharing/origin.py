"""Where shared things come from: the name of the source, and the files by which they can be made again."""

import re
from pathlib import Path

import yaml

from gdacli.artifacts import write_text
from gdacli.errors import GdaError
from gdacli.sharing.shared_pool import without_places

PROJECT_FILES = ("params.yaml", "dvc.yaml", "dvc.lock")
"""What says how all was made, as far as a project has them."""

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def hub_id(data_source: str) -> str | None:
    """Return `data.source` if it is the id of a Hub dataset."""
    is_local = data_source == "digits" or Path(data_source).expanduser().exists()
    return data_source if _HUB_ID.fullmatch(data_source) and not is_local else None


def source_title(data_source: str) -> str:
    """Return a name for readers of where the originals came from: no path.

    >>> source_title("digits"), source_title("/home/me/shoes.parquet")
    ("scikit-learn's handwritten digits", 'shoes')
    """
    if data_source == "digits":
        return "scikit-learn's handwritten digits"
    return hub_id(data_source) or Path(data_source).expanduser().absolute().stem


def write_project_files(folder: Path) -> None:
    """Write what says how all was made; of local paths the last part is left, and comments are left out.

    Raises:
        GdaError: one is not valid YAML.
    """
    for name in PROJECT_FILES:
        path = Path(name)
        if not path.exists():
            continue
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise GdaError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
        write_text(folder / name, yaml.safe_dump(without_places(values), sort_keys=False, allow_unicode=True))
