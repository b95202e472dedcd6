"""No generator: for a project whose arms take their synthetic images from imported pools, or have none."""

from typing import Any, NoReturn

from gdacli.errors import GdaError

VERSION = 1
OPTIONS = ()


def load(folder: Any, **options: Any) -> NoReturn:
    """Refuse: there is nothing to load.

    Raises:
        GdaError: always.
    """
    raise GdaError("generate.backend: none makes no image: name a backend, or take arms that add imported images")
