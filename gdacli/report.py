"""The report: what was compared, whether it helped, and what the images look like."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any

import numpy as np

from gdacli.metrics import Difference, Estimate
from gdacli.plots import curve_plot, interval_plot, probe_plot
from gdacli.thumbnails import data_uri

GALLERY_SIDE = 96
"""Largest side of an image in the gallery, in pixels."""
_PIXELATED_BELOW = 64
_GALLERY_BYTES = 4_000_000


@dataclass(frozen=True)
class ArmResult:
    """What is known of an arm after all its seeds; errors and F1 in percent."""

    name: str
    description: str
    errors: list[float]
    """Test error per seed."""
    error: Estimate
    balanced_error: Estimate
    macro_f1: Estimate
    late_error: Estimate
    """On the late-learned images of the split."""
    early_error: Estimate
    class_errors: list[float]
    """Mean over seeds, per class."""
    updates: int
    images_seen: int
    mix_size: int
    """Images an epoch, repeats counted."""


@dataclass(frozen=True)
class Variant:
    """A place in the gallery for an image of the pool."""

    key: str
    image: np.ndarray | None
    """uint8 [3, H, W]; None where the pool has none."""
    dropped: str | None = None
    """Why `generate.filter` dropped it."""


@dataclass(frozen=True)
class GalleryRow:
    """A training image, uint8 [3, H, W], beside its variants, one a strength."""

    key: str
    class_name: str
    source: np.ndarray
    variants: list[Variant]


@dataclass(frozen=True)
class Gallery:
    """Late-learned images with a variant per strength, and early-learned ones."""

    strengths: list[float]
    late: list[GalleryRow]
    early: list[GalleryRow]

    @property
    def has_variants(self) -> bool:
        """True if an image of the pool is shown, which a person may reject."""
        return any(variant.image is not None for row in self.late for variant in row.variants)

    def by_class(self) -> list[tuple[str, list[GalleryRow]]]:
        """Return the late-learned rows of each class, in their order."""
        return [(name, list(rows)) for name, rows in groupby(self.late, lambda row: row.class_name)]


@dataclass(frozen=True)
class Suspect:
    """A training image whose label is probably wrong, uint8 [3, H, W]."""

    key: str
    label: str
    suggested: str
    """The class that the model takes it for."""
    quality: float
    """Probability of the label in [0, 1], out of fold."""
    image: np.ndarray


def rows_per_class(num_classes: int, num_strengths: int, image_side: int) -> int:
    """Return how many late-learned images of each class the gallery has room for, 1 to 4.

    Even images that do not compress then take less than 4 MB, unless there are more than 10 strengths.

    >>> rows_per_class(10, 2, 32), rows_per_class(10, 4, 512)
    (4, 2)
    """
    largest_bytes = 4 * min(image_side, GALLERY_SIDE) ** 2  # 3 bytes a pixel, 4 characters for 3 bytes
    return int(np.clip(_GALLERY_BYTES // (num_classes * (1 + num_strengths) * largest_bytes), 1, 4))


@dataclass(frozen=True)
class Report:
    """All that the report says."""

    class_names: list[str]
    seeds: list[int]
    split: str
    """On which the arms are compared: test or validation."""
    num_train: int
    num_images: int
    """Of the split."""
    num_late: int
    """How many of them are late-learned."""
    arms: list[ArmResult]
    differences: dict[str, dict[str, Difference]]
    """Reference -> arm -> paired difference in error."""
    selection: dict[str, Any]
    curves: dict[str, dict[str, list[float]]]
    probe_curve: dict[str, list[float]]
    gallery: Gallery
    suspects: list[Suspect]
    """The most certain ones; `selection` says how many there are."""
    pool_size: int
    dropped: dict[str, int]
    """Reason -> number of images that `generate.filter` dropped from the pool."""
    rejects: dict[str, dict[str, str]]
    """The rows of `rejects.csv` by key."""
    num_rejected: int
    """How many of them are in the pool, and so in no mix."""
    settings: dict[str, Any]

    @property
    def equal_updates(self) -> bool:
        """True if every arm made the same number of updates."""
        return len({arm.updates for arm in self.arms}) == 1

    def headlines(self) -> list[str]:
        """Say in plain words how each arm compares with the first reference."""
        if not self.differences:
            return ["No arm called original or upsample was run, so there is nothing to compare with."]
        reference, differences = next(iter(self.differences.items()))
        return [f"{arm} against {reference}: {in_words(difference)}" for arm, difference in differences.items()]

    def left_out(self) -> str:
        """Say how many synthetic images no arm trains on, and why."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()) if count)
        filtered = f"{sum(self.dropped.values())} more ({reasons})" if reasons else "none"
        return (
            f"The pool holds {self.pool_size} synthetic images; generate.filter dropped {filtered}, and a person "
            f"rejected {self.num_rejected or 'none'} of the pool (rejects.csv), which no arm trains on."
        )

    def about_suspects(self) -> str | None:
        """Say how many labels are probably wrong and what was done; None if nobody looked."""
        count = self.selection["num_suspects"]
        if count is None:
            return None
        done = "no arm augments" if self.selection["suspects_excluded"] else "arms augment like any other"
        return f"{count} of {self.num_train} training images are probably mislabelled, which {done}."

    def to_json(self) -> dict[str, Any]:
        """Return all figures, without images."""
        return {
            "seeds": self.seeds,
            "num_train": self.num_train,
            "split": self.split,
            "num_images": self.num_images,
            "num_late": self.num_late,
            "class_names": self.class_names,
            "pool": {"images": self.pool_size, "dropped": self.dropped, "rejected": self.num_rejected},
            "num_suspects": self.selection["num_suspects"],
            "arms": {arm.name: _finite(asdict(arm)) for arm in self.arms},
            "differences": {
                reference: {arm: {**_finite(asdict(d)), "significant": d.significant} for arm, d in by_arm.items()}
                for reference, by_arm in self.differences.items()
            },
        }

    def to_metrics(self) -> dict[str, Any]:
        """Return the figures that `dvc metrics` and `dvc exp show` compare (DVC takes a key `error` for a failure)."""
        arms = {
            arm.name: {
                f"{self.split}_error": round(arm.error.mean, 4),
                **({f"{self.split}_error_sd": round(arm.error.sd, 4)} if arm.error.sd is not None else {}),
                "balanced_error": round(arm.balanced_error.mean, 4),
                "macro_f1": round(arm.macro_f1.mean, 4),
                "late_error": round(arm.late_error.mean, 4),
                "early_error": round(arm.early_error.mean, 4),
                "updates": arm.updates,
            }
            for arm in self.arms
        }
        return _finite({"arms": arms, "num_seeds": len(self.seeds)})


def in_words(difference: Difference) -> str:
    """Say a difference in error as a sentence's end.

    >>> in_words(Difference(-0.5, 0.1, -0.75, -0.25, 3, 0.013))
    '0.50 points lower error (95 % interval -0.75 to -0.25, p = 0.013, 3 seeds)'
    """
    size = f"{abs(difference.mean):.2f} points {'lower' if difference.mean < 0 else 'higher'} error"
    if difference.low is None and difference.mean == 0:
        return f"the same error {'with one seed' if difference.num == 1 else f'in each of {difference.num} seeds'}"
    if difference.low is None:
        why = "with one seed" if difference.num == 1 else f"in each of {difference.num} seeds, which do not vary"
        return f"{size} {why}: whether it is chance cannot be told"
    p_value = "" if difference.p_value is None else f", p = {difference.p_value:.2g}"
    detail = f"95 % interval {difference.low:.2f} to {difference.high:.2f}{p_value}, {difference.num} seeds"
    if difference.significant:
        return f"{size} ({detail})"
    return f"no significant difference ({_signed(difference.mean)} points, {detail})"


def spread(value: Estimate, digits: int = 2) -> str:
    """Write an estimate as mean ± standard deviation.

    >>> spread(Estimate(4.417, 0.12, 4.1, 4.7, 3))
    '4.42 ± 0.12'
    """
    if math.isnan(value.mean):
        return "none"
    return f"{value.mean:.{digits}f}" + (f" ± {value.sd:.{digits}f}" if value.sd is not None else "")


def interval(value: Estimate, digits: int = 2) -> str:
    """Write the 95 % interval of an estimate."""
    return "-" if value.low is None else f"{value.low:.{digits}f} to {value.high:.{digits}f}"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # adding 0 makes -0 a 0


def change(difference: Difference) -> str:
    """Write a difference with its 95 % interval.

    >>> change(Difference(-0.5, 0.1, -0.75, -0.25, 3, 0.013))
    '-0.50 (-0.75 to -0.25)'
    """
    same = "one seed" if difference.num == 1 else "the same in every seed"
    return f"{_signed(difference.mean)} ({same if difference.low is None else interval(difference)})"


def render_markdown(report: Report) -> str:
    """Return the table of arms and what it says, readable as plain text."""
    header = [
        "arm",
        f"{report.split} error %",
        "95 % interval",
        "late-learned %",
        "early-learned %",
        "updates",
        "images seen",
    ]
    references = list(report.differences)
    header += [f"minus {reference}" for reference in references]
    rows = []
    for arm in report.arms:
        row = [arm.name, spread(arm.error), interval(arm.error), spread(arm.late_error), spread(arm.early_error)]
        row += [str(arm.updates), str(arm.images_seen)]
        for reference in references:
            difference = report.differences[reference].get(arm.name)
            row.append("" if difference is None else change(difference))
        rows.append(row)
    lines = [
        f"{report.split.capitalize()} error on {report.num_images} images ({report.num_late} late-learned), mean ± "
        f"standard deviation over {len(report.seeds)} seeds; {report.num_train} training images.",
        "",
        *_aligned([header, *rows]),
        "",
        *[f"- {line}" for line in report.headlines()],
        f"- {_caveat(report)}",
        *([f"- {about}"] if (about := report.about_suspects()) else []),
        *([f"- {report.left_out()}"] if any(report.dropped.values()) or report.rejects else []),
    ]
    return "\n".join(lines) + "\n"


def render_html(report: Report) -> str:
    """Return the whole report as one HTML page that loads nothing from elsewhere."""
    import jinja2
    import yaml

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "spread": spread,
        "interval": interval,
        "picture": _picture,
        "pixelated": _pixelated,
        "points": _points,
        "change": change,
    }
    template = environment.from_string(files("gdacli").joinpath("templates/report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        caveat=_caveat(report),
        settings=yaml.safe_dump(report.settings, sort_keys=False, allow_unicode=True),
        interval_plot=interval_plot(report),
        curve_plot=curve_plot(report),
        probe_plot=probe_plot(report),
    )


def _caveat(report: Report) -> str:
    updates = (
        "Every arm made the same number of updates"
        if report.equal_updates
        else "The arms made different numbers of updates, so a gain may come from longer training"
    )
    return (
        f"{updates}. Intervals are t-intervals over {len(report.seeds)} training seeds with the "
        f"{report.split} images fixed; they are not corrected for the number of comparisons."
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _points(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2f}"


def _picture(image: np.ndarray) -> str:
    return data_uri(image, GALLERY_SIDE)


def _pixelated(image: np.ndarray) -> bool:
    return max(image.shape) < _PIXELATED_BELOW
