"""The licences that the Hub knows by an identifier, and how a card names one."""

from collections.abc import Mapping
from typing import Any

from gdacli.errors import GdaError

OTHER = "other"

LICENSES = (
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1",
    "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "lppl-1.3c", "ms-pl",
    "mpl-2.0", "odc-by", "odbl", "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl",
    "lgpl-lr", "deepfloyd-if-license", "llama2", "gemma", "unknown", OTHER,
)  # fmt: skip
"""Source: the Hub's documentation, page "Licenses", the list of identifiers for a card."""


def license_metadata(license: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of a card's metadata that name a licence; `license` is a mapping of the section `push`."""
    if license["id"] != OTHER:
        return {"license": license["id"]}
    linked = {"license_link": license["link"]} if license["link"] else {}
    return {"license": OTHER, "license_name": license["name"], **linked}


def check_stated(share: Mapping[str, Any], needed: Mapping[str, str]) -> None:
    """Check that licences are stated, and name all that are not at once.

    Args:
        share: the section `push`.
        needed: its keys, and what each is the licence of.

    Raises:
        GdaError: one is not.
    """
    missing = {name: what for name, what in needed.items() if share[name] is None}
    if missing:
        fields = " and ".join(f"push.{name}" for name in missing)
        section = ", ".join(f'{name}: {{id: cc-by-4.0, stated_in: "https://..."}}' for name in missing)
        raise GdaError(
            f"params.yaml: {fields}: missing: say under which licence {' and '.join(missing.values())} may be shared, "
            f"and where that is stated: push: {{{section}}}"
        )
