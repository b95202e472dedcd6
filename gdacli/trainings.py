"""A training put together from an arm's mix and its settings, for those who run it: `train`, and replays of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gdacli.batches import batch_bounds
from gdacli.distributed import World
from gdacli.errors import GdaError
from gdacli.finder import Finder
from gdacli.image_index import References, read_references
from gdacli.live import LiveGenerator
from gdacli.loading import ImageSource, open_images
from gdacli.models import Classifier, create_model, freeze
from gdacli.objectives import NEEDS_CLASSES, TERMS, Supply, SyntheticObjective, Term, gda, gda_ssl, pcr
from gdacli.prepared import Prepared
from gdacli.pseudo_sampling import PseudoSampling
from gdacli.rng import derive_seed
from gdacli.synthetic_images import Generated, Stored
from gdacli.tables import read_columns
from gdacli.training import Epoch, Keeper, State, predict, train_classifier
from gdacli.training_step import Objective
from gdacli.truncation import Truncated, find_centres

CRITERIA: dict[str, Term | None] = {"validation": None, "cross_entropy": gda, "pcr": pcr}
"""`finder.criterion` -> what is raised on synthetic images instead of looking ahead."""


@dataclass(frozen=True)
class Training:
    """One that has not begun; `fit` runs it, and so changes its model."""

    model: Classifier
    """On its device, with its first weights."""
    images: ImageSource
    """N images, those of the mix."""
    labels: torch.Tensor
    """int64 [N], on the CPU."""
    repeats: torch.Tensor
    """int64 [N], how often an epoch shows each image."""
    num_classes: int
    updates: int
    per_epoch: int
    """Updates of a whole epoch."""
    seed: int
    """Of the order and of the augmentations."""
    loop: Mapping[str, Any]
    """`Optimisation.of_loop`: batch size, optimizer, objective, augmentations."""
    objective: Objective | None
    """What is minimised beside the cross-entropy of the images."""
    course: Mapping[str, Any]
    """What else `training.train_classifier` takes: schedule, moving average, which weights are kept."""


def open_training(
    prepared: Prepared,
    arm: str,
    mix: Path,
    seed: int,
    device: torch.device,
    settings: Mapping[str, Any],
    loading: Mapping[str, Any],
    loop: Mapping[str, Any],
    live: LiveGenerator | None = None,
    world: World | None = None,
) -> Training:
    """Open the images of an arm's mix and make the model that is to be trained on them.

    With an objective other than cross-entropy the synthetic images of the mix are no training images but the
    objective's; of a mix without any, they come from the generator.

    Args:
        prepared: the real images.
        arm: name.
        mix: its file.
        seed: of the training.
        device: where it is to run.
        settings: `Train.of_weights`.
        loading: `Train.of_loading`.
        loop: `Train.of_loop`.
        live: the generator, of `live.live_for`.
        world: the processes; None is one.

    Raises:
        GdaError: an image is missing or another, the model or the generator does not fit, or there are no validation
            images and the best weights are to be kept or the objective looks ahead.
    """
    size = prepared.training_size(settings["image_size"], "train.image_size")
    reading: dict[str, Any] = {"image_size": size, "device": device, **loading}
    own, added = _rows(mix, settings["objective"])
    references, labels, repeats = _read(mix, arm, own)
    images = open_images(references, seed=derive_seed("train", seed), **reading)
    per_epoch = len(batch_bounds(int(repeats.sum()), settings["batch_size"]))
    model = create_model(
        settings["model"],
        prepared.num_classes,
        settings["model_args"],
        seed,
        image_size=size,
        pretrained=settings["pretrained"],
    ).to(device)
    freeze(model, settings["freeze"])
    plain = {**reading, "random_resized_crop": None}
    validate = _validation(prepared, **plain)
    best = settings["checkpoint"] == "best"
    if best:
        prepared.require_validation("train.checkpoint: found best")
    objective = None
    if settings["objective"] != "cross_entropy":
        objective = _objective(
            settings,
            prepared,
            model,
            device,
            stored=(images, labels) if settings["objective"] == "real_consistency" else _stored(mix, arm, added, plain),
            live=live,
            validation=lambda: (open_images(prepared.references("validation"), **plain), prepared.labels("validation")),
            augmentations=loop["augmentations"],
            seed=derive_seed("train", seed),
            world=world or World(),
        )
    return Training(
        model=model,
        images=images,
        labels=labels,
        repeats=repeats,
        num_classes=prepared.num_classes,
        updates=settings["budget"]["updates"] or settings["budget"]["epochs"] * per_epoch,
        per_epoch=per_epoch,
        seed=derive_seed("train", seed),
        loop=loop,
        objective=objective,
        course={
            **{name: settings[name] for name in ("schedule", "milestones", "warmup", "ema_decay")},
            "validate": validate,
            "keep_best": best,
        },
    )


def added_images(mix: Path, arm: str) -> References | None:
    """Return what names the synthetic images of an arm's mix; None if it has none."""
    origins = read_columns(mix, ["origin"])["origin"].to_pylist()
    rows = origins.count("source"), len(origins)
    return None if rows[0] == rows[1] else _read(mix, arm, rows)[0]


def fit(
    training: Training,
    *,
    on_epoch: Callable[[Epoch], bool | None],
    on_update: Callable[[int, int], None],
    state: State | None = None,
    keeper: Keeper | None = None,
    world: World | None = None,
) -> None:
    """Train the model in place; see `training.train_classifier`."""
    train_classifier(
        training.model,
        training.images,
        training.labels,
        training.repeats,
        num_classes=training.num_classes,
        updates=training.updates,
        seed=training.seed,
        on_epoch=on_epoch,
        on_update=on_update,
        state=state,
        keeper=keeper,
        world=world,
        objective=training.objective,
        **training.course,
        **training.loop,
    )


Labelled = tuple[ImageSource, torch.Tensor]
"""N images, and their labels int64 [N] on the CPU."""


def _rows(mix: Path, objective: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return which rows of a mix are trained on, and which are the objective's; real images come first."""
    origins = read_columns(mix, ["origin"])["origin"].to_pylist()
    num_real = len(origins) if objective == "cross_entropy" else origins.count("source")
    return (0, num_real), (num_real, len(origins))


def _read(mix: Path, arm: str, rows: tuple[int, int]) -> tuple[References, torch.Tensor, torch.Tensor]:
    """Return references, labels and repeats of some rows of a mix."""
    references = read_references(mix, origin="the mix", command=f"gdacli mix --arm {arm}", rows=rows)
    table = read_columns(mix, ["label", "repeats"]).slice(rows[0], rows[1] - rows[0])
    labels, repeats = (torch.from_numpy(table[name].to_numpy().copy()) for name in ("label", "repeats"))
    return references, labels, repeats


def _stored(mix: Path, arm: str, rows: tuple[int, int], reading: Mapping[str, Any]) -> Labelled | None:
    """Open the synthetic images of a mix; None if it has none."""
    if rows[0] == rows[1]:
        return None
    references, labels, _ = _read(mix, arm, rows)
    return open_images(references, **reading), labels


def _objective(
    settings: Mapping[str, Any],
    prepared: Prepared,
    model: Classifier,
    device: torch.device,
    *,
    stored: Labelled | None,
    live: LiveGenerator | None,
    validation: Callable[[], tuple[ImageSource, np.ndarray]],
    augmentations: Mapping[str, Any],
    seed: int,
    world: World,
) -> SyntheticObjective:
    """Put an objective together; `stored` images go before the generator's."""
    name, own, search = settings["objective"], settings["synthetic"], settings.get("finder")
    head, term = _term(name, own, model, prepared.num_classes, device, seed)
    looks_at = CRITERIA[search["criterion"]] if search is not None else None
    two_views = TERMS[name] in (gda_ssl, pcr) or looks_at is pcr
    batch: dict[str, Any] = {
        "batch_size": own["batch_size"],
        "strong": own["strong_augment"] if two_views else None,
        "seed": derive_seed("objective", seed),
        "world": world,
    }
    supply: Supply
    if stored is not None:
        supply = Stored(*stored, augmentations=augmentations, **batch)
    elif live is None:
        raise ValueError(f"{name} needs images")
    else:
        generator = live.load(device, own["num_inference_steps"])
        if not generator.conditional and (name in NEEDS_CLASSES or looks_at is gda):
            raise GdaError(
                f"train.objective: {name}: the generator ({live.name}) is told no class, so its images have no labels; "
                "allowed with it: pcr, mgr (criterion: validation or pcr), gda_ssl"
            )
        if own["truncation"] is not None:
            cut = dict(own["truncation"])
            psi = cut.pop("psi")
            of_centres = derive_seed("truncation", seed)
            centres = find_centres(generator, num_classes=prepared.num_classes, seed=of_centres, device=device, **cut)
            generator = Truncated(generator, centres, psi)
        generated = Generated(
            generator,
            num_classes=prepared.num_classes,
            image_size=model.image_size or live.image_size,
            latent_noise=own["latent_noise"] if two_views else 0.0,
            dtype=settings["dtype"],
            device=device,
            **batch,
        )
        supply = generated
        if search is not None:
            supply = _search(search, generated, term, own["weight"], looks_at, prepared, validation, seed, world)
    return SyntheticObjective(
        term, supply, weight=own["weight"], head=head, moves_statistics=own["batch_norm"] == "both"
    )


def _term(
    name: str, own: Mapping[str, Any], model: Classifier, num_classes: int, device: torch.device, seed: int
) -> tuple[nn.Module | None, Term]:
    """Return the term of an objective, and what is trained for it beside the classifier."""
    term, head = TERMS[name], None
    if name == "gda_multi_head":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("head", seed))
            head = nn.Linear(model.num_features(), num_classes).to(device)
        return head, partial(term, head=head)
    if name == "gda_ssl":
        return None, partial(term, temperature=own["temperature"], confidence=own["confidence"])
    return None, term


def _search(
    search: Mapping[str, Any],
    generated: Generated,
    term: Term,
    weight: float,
    looks_at: Term | None,
    prepared: Prepared,
    validation: Callable[[], tuple[ImageSource, np.ndarray]],
    seed: int,
    world: World,
) -> PseudoSampling:
    """Put the search for latent vectors together."""
    ahead = None
    if looks_at is None:
        prepared.require_validation("train.objective: the search for latent vectors looks at the validation loss")
        images, labels = validation()
        ahead = Stored(
            images,
            torch.from_numpy(labels.copy()),
            batch_size=search["batch_size"],
            augmentations={},
            strong=None,
            seed=derive_seed("validation", seed),
            world=world,
        )
    finder = None
    if search["optimise"] == "finder":
        of_weights = derive_seed("finder", seed)
        finder = Finder(generated.generator.latent_dim, search["architecture"], search["hidden"], of_weights)
        finder.to(generated.device)
    return PseudoSampling(
        generated,
        term,
        weight=weight,
        finder=finder,
        validation=ahead,
        criterion=looks_at,
        **{name: search[name] for name in ("lr", "kl_weight", "kl_reduction", "gradient", "epsilon", "inner_lr")},
    )


def _validation(prepared: Prepared, **reading: Any) -> Callable[[Classifier], tuple[float, float]] | None:
    """Return what gives a model's error in % and loss in nats on the validation split, None without one."""
    if prepared.splits["validation"].count == 0:
        return None
    images = open_images(prepared.references("validation"), **reading)
    truth = torch.from_numpy(prepared.labels("validation"))

    def validate(model: Classifier) -> tuple[float, float]:
        logits = predict(model, images.in_order())
        error = (logits.argmax(1) != truth).float().mean().item()
        return 100 * error, F.cross_entropy(logits, truth).item()

    return validate
