"""The figures that advice on a project rests on."""

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from gdacli.clustered_share import Share, difference_interval
from gdacli.memorisation import Memorisation


@dataclass(frozen=True)
class ImageGroup:
    """Synthetic images that are looked at together: those of one strength, or without a source, of a pool."""

    name: str
    """Of `quality.group_name`."""
    strength: float | None
    imported: bool
    has_source: bool
    num_images: int
    apart: Share | None
    """How many a classifier tells from the real images that they were made from, of equally many of both; 50 = none
    can be told. None of fewer than `two_sample.LEAST_PAIRS` pairs."""
    found: Share
    """How many of them have the label that the judge finds."""
    unchanged: float | None
    """Share in % that are copies of their own source, exact or near ones; None without sources."""


@dataclass(frozen=True)
class Judge:
    """A model that was trained on real images alone, and how often it is right on real images."""

    name: str
    trained: bool
    """Whether it was trained as the arms are; the probe was stopped early."""
    train: Share
    """Of train images, which it has seen."""
    validation: Share | None
    """Of validation images, which it has not."""

    @property
    def gap(self) -> tuple[float, float, float] | None:
        """Return how many points of accuracy it loses on images that it has not seen, and the 95 % interval."""
        if self.validation is None:
            return None
        return self.train.value - self.validation.value, *difference_interval(self.train, self.validation)


@dataclass(frozen=True)
class CopiesOfTrain:
    """Synthetic images that are copies of a train image other than their source."""

    num_images: int
    num_drawn: int
    """For how many of them near copies were looked for."""
    num_exact: int
    num_near: int
    telling: bool
    """Whether a near copy is one: of images that are very small unrelated ones look alike."""


@dataclass(frozen=True)
class Probe:
    """The probe at its separation epoch."""

    epoch: int
    train_error: float
    """In %."""


@dataclass(frozen=True)
class Selection:
    """What the arm selects that the report is about."""

    strategy: str
    share: float
    """In %."""
    lowest: float
    """Of the classes, in %."""
    highest: float


@dataclass(frozen=True)
class Verdict:
    """What the comparison of the trained arms says."""

    arm: str
    reference: str
    points: float
    """Difference in error; negative is better."""
    told: bool
    seeds_needed: int | None
    sentence: str


@dataclass(frozen=True)
class Settings:
    """What of `params.yaml` the advice names."""

    arm: str | None
    """That the advice is about."""
    objective: str | None
    """Of this arm."""
    strategy: str | None
    """By which it selects."""
    strengths: tuple[float, ...]
    """Of its images."""
    guidance_scale: float | None
    """None where the generator knows none."""
    generates: bool
    """Whether there is a generator, or imported pools alone."""
    fitted: bool
    """Whether the generator is fitted on the train images alone."""


@dataclass(frozen=True)
class Figures:
    """All of them; what there is nothing to measure of yet is None or empty."""

    settings: Settings
    class_counts: dict[str, int]
    """Class -> its train images."""
    num_features: int
    features: str
    """The model whose features are compared."""
    control: Share | None
    """How many validation images are told from train images of the same classes; None without a validation split."""
    judge: Judge
    probe: Probe
    selection: Selection | None
    groups: list[ImageGroup]
    copies: CopiesOfTrain | None
    """None without a pool."""
    memorised: Memorisation | None
    """Of images without a source, by their coarse grey pixels; None without such images."""
    verdict: Verdict | None
    """None before `gdacli evaluate`."""
    no_verdict: str | None
    """Why there is none, as a sentence."""
    doubts: tuple[str, ...] = ()
    """What of these figures is not of the settings as they are now, as sentences."""

    @property
    def median_class(self) -> float:
        """Median number of train images of a class that has any."""
        return float(median(count for count in self.class_counts.values() if count))

    @property
    def gap_unit(self) -> float:
        """The generalisation gap of the Gaussian mixture model, features over images, of two classes of median size."""
        return self.num_features / (2 * self.median_class)

    def to_json(self) -> dict[str, Any]:
        """Return all of them."""
        return {
            **asdict(self),
            "median_class": self.median_class,
            "gap_unit": self.gap_unit,
            "gap": self.judge.gap,
        }
