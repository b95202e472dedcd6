"""An objective put together from its settings, with the images that it is taken of."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from gdacli.distributed import World
from gdacli.errors import GdaError
from gdacli.finder import Finder
from gdacli.latent import LatentGenerator
from gdacli.live import LiveGenerator
from gdacli.loading import ImageSource
from gdacli.models import Classifier
from gdacli.objectives import OBJECTIVES, Supply, SyntheticObjective, Term, gda, gda_multi_head, gda_ssl, pcr
from gdacli.pseudo_sampling import PseudoSampling
from gdacli.rng import derive_seed
from gdacli.synthetic_images import Generated, Stored
from gdacli.truncation import Truncated, find_centres

Labelled = tuple[ImageSource, torch.Tensor]
"""N images, and their labels int64 [N] on the CPU."""

CRITERIA: dict[str, Term | None] = {"validation": None, "cross_entropy": gda, "pcr": pcr}
"""`finder.criterion` -> what is raised on synthetic images instead of looking ahead."""


def make_objective(
    settings: Mapping[str, Any],
    model: Classifier,
    num_classes: int,
    device: torch.device,
    *,
    real: Labelled,
    stored: Labelled | None,
    live: LiveGenerator | None,
    validation: Labelled | None,
    augmentations: Mapping[str, Any],
    seed: int,
    world: World,
) -> SyntheticObjective:
    """Put an objective other than cross-entropy together.

    Args:
        settings: `Train.of_weights`.
        model: that is trained, on `device`.
        num_classes: of the data.
        device: of all.
        real: the training images.
        stored: the synthetic images that the arm adds; they go before the generator's.
        live: the generator; None where none is needed.
        validation: the images of the validation split; a search that looks ahead needs them.
        augmentations: of the training; see `synthetic_images.Stored`.
        seed: of the training.
        world: the processes.

    Raises:
        GdaError: the objective does not take such images, the generator does not fit, or nothing that it trains is
            trained.
    """
    name, own, search = settings["objective"], settings["synthetic"], settings.get("finder")
    kind = OBJECTIVES[name]
    if stored is not None and kind.images != "synthetic":
        what = "compares real images alone" if kind.images == "real" else "searches the latent space of a generator"
        raise GdaError(f"train.objective: {name} {what}, but the arm adds images: leave its add out")
    if not kind.trains_last_layer and settings["freeze"] != "none" and not _trains_features(model):
        raise GdaError(
            f"train.freeze: found {settings['freeze']}, but train.objective {name} trains all but the last layer, and "
            "nothing of that is left: freeze less, or take gda or gda_ssl"
        )
    head, term = _term(name, own, model, num_classes, device, seed)
    looks_at = CRITERIA[search["criterion"]] if search is not None else None
    two_views = kind.two_views or looks_at is pcr
    batch: dict[str, Any] = {
        "batch_size": own["batch_size"],
        "strong": own["strong_augment"] if two_views else None,
        "seed": derive_seed("objective", seed),
        "world": world,
    }
    at_hand = real if kind.images == "real" else stored
    supply: Supply
    if at_hand is not None:
        supply = Stored(*at_hand, augmentations=augmentations, **batch)
    elif live is None:
        raise ValueError(f"{name} needs images")
    else:
        supply = generated = Generated(
            _generator(live, own, num_classes, device, seed, name, kind.labelled or looks_at is gda),
            num_classes=num_classes,
            image_size=model.image_size or live.image_size,
            latent_noise=own["latent_noise"] if two_views else 0.0,
            dtype=settings["dtype"],
            device=device,
            **batch,
        )
        if search is not None:
            supply = _search(search, generated, term, own["weight"], looks_at, validation, seed, world)
    return SyntheticObjective(
        term, supply, weight=own["weight"], head=head, moves_statistics=own["batch_norm"] == "both"
    )


def _trains_features(model: Classifier) -> bool:
    """Say if anything but the last layer is trained."""
    last = model.net.get_classifier()
    of_last = {id(parameter) for parameter in last.parameters()} if isinstance(last, nn.Module) else set()
    return any(parameter.requires_grad and id(parameter) not in of_last for parameter in model.parameters())


def _generator(
    live: LiveGenerator,
    own: Mapping[str, Any],
    num_classes: int,
    device: torch.device,
    seed: int,
    name: str,
    needs_labels: bool,
) -> LatentGenerator:
    """Load the generator, truncated if that is asked for."""
    generator = live.load(device, own["num_inference_steps"])
    if needs_labels and not generator.conditional:
        raise GdaError(
            f"train.objective: {name}: the generator ({live.name}) is told no class, so its images have no labels; "
            "allowed with it: pcr, mgr (criterion: validation or pcr), gda_ssl"
        )
    if own["truncation"] is None:
        return generator
    cut = dict(own["truncation"])
    psi = cut.pop("psi")
    of_centres = derive_seed("truncation", seed)
    centres = find_centres(generator, num_classes=num_classes, seed=of_centres, device=device, **cut)
    return Truncated(generator, centres, psi)


def _term(
    name: str, own: Mapping[str, Any], model: Classifier, num_classes: int, device: torch.device, seed: int
) -> tuple[nn.Module | None, Term]:
    """Return what is trained for an objective beside the classifier, and its term."""
    term = OBJECTIVES[name].term
    if term is gda_multi_head:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("head", seed))
            head = nn.Linear(model.num_features(), num_classes).to(device)
        return head, partial(term, head=head)
    if term is gda_ssl:
        return None, partial(term, temperature=own["temperature"], confidence=own["confidence"])
    return None, term


def _search(
    search: Mapping[str, Any],
    generated: Generated,
    term: Term,
    weight: float,
    looks_at: Term | None,
    validation: Labelled | None,
    seed: int,
    world: World,
) -> PseudoSampling:
    """Put the search for latent vectors together."""
    ahead = None
    if looks_at is None and validation is not None:
        of_ahead = derive_seed("validation", seed)
        options: dict[str, Any] = {"augmentations": {}, "strong": None, "seed": of_ahead, "world": world}
        ahead = Stored(*validation, batch_size=search["batch_size"], **options)
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
