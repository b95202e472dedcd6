"""Objectives in the training loop, with a tiny generator that is a function of its latent vector."""

import io
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from test_training import SAM, SETTINGS, Saved, halves, same
from torch import nn

from gdacli import objective_sections
from gdacli.distributed import World
from gdacli.errors import GdaError
from gdacli.finder import Finder
from gdacli.loading import InMemory
from gdacli.losses import pseudo_consistency, uda_consistency
from gdacli.models import create_model
from gdacli.objectives import OBJECTIVES, SyntheticObjective
from gdacli.pseudo_sampling import PseudoSampling
from gdacli.synthetic_images import Generated, Stored
from gdacli.training import Epoch, predict, train_classifier

STRONG = {"num_ops": 2, "magnitude": 9}
SEARCH: dict[str, Any] = {
    "lr": 1e-2, "kl_weight": 0.01, "kl_reduction": "mean", "gradient": "finite_differences", "epsilon": 0.01,
    "inner_lr": None,
}  # fmt: skip


class Halves(nn.Module):
    """Images whose upper (0) or lower (1) half is lighter, by how much and on what ground says z of 4."""

    latent_dim = 4
    conditional = True

    def __init__(self) -> None:
        super().__init__()
        self.contrast = nn.Parameter(torch.tensor(0.3))
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        half = torch.zeros(2, 1, 8, 8)
        half[0, :, :4] = half[1, :, 4:] = 1
        colours = torch.sigmoid(z[:, :3])[:, :, None, None]
        return colours * 0.5 + self.contrast * torch.sigmoid(z[:, 3])[:, None, None, None] * half[labels]


def generated(strong: Any = STRONG, **options: Any) -> Generated:
    settings: dict[str, Any] = {
        "num_classes": 2, "batch_size": 12, "image_size": 8, "strong": strong, "latent_noise": 0.0,
        "dtype": "float32", "device": torch.device("cpu"), "seed": 0, "world": World(),
    }  # fmt: skip
    return Generated(Halves(), **{**settings, **options})


def stored(strong: Any = STRONG, batch_size: int = 12, world: World | None = None) -> Stored:
    images, labels = halves()
    augmentations: dict[str, Any] = {"crop": {"padding": 1}, "mixup": {}}
    given: dict[str, Any] = {"augmentations": augmentations, "seed": 0, "world": world or World()}
    return Stored(InMemory(images), labels, batch_size=batch_size, strong=strong, **given)


def make(name: str, world: World | None = None, **search: Any) -> SyntheticObjective:
    """Put an objective together as `objective_assembly` does, with images of the tiny generator."""
    term, head = OBJECTIVES[name].term, None
    if name == "gda_multi_head":
        torch.manual_seed(0)
        head = nn.Linear(16, 2)
        term = partial(term, head=head)
    if name == "gda_ssl":
        term = partial(term, temperature=0.4, confidence=0.5)
    supply: Any = stored(world=world) if OBJECTIVES[name].images == "real" else generated(world=world or World())
    if OBJECTIVES[name].images == "found":
        images, labels = halves()
        of_validation = Stored(
            InMemory(images), labels, batch_size=10, augmentations={}, strong=None, seed=1, world=world or World()
        )
        given: dict[str, Any] = {
            "finder": Finder(4, "residual_mlp", None, 0), "validation": of_validation, "criterion": None, **SEARCH,
        }  # fmt: skip
        supply = PseudoSampling(supply, term, weight=0.5, **{**given, **search})
    return SyntheticObjective(term, supply, weight=0.5, head=head)


def train(objective: SyntheticObjective | None, dropout: bool = False, **options: Any) -> tuple[dict, list[Epoch]]:
    torch.set_num_threads(1)
    images, labels = halves()
    model = create_model("convnet", 2, {"width": 4}, 0)
    if dropout:
        model.net.features.append(torch.nn.Dropout(0.5))
    epochs: list[Epoch] = []
    settings = {**SETTINGS, "updates": 12, "on_epoch": epochs.append, "objective": objective, **options}
    train_classifier(model, InMemory(images), labels, torch.ones(60, dtype=torch.int64), **settings)
    wrong = (predict(model, InMemory(images).in_order()).argmax(1) != labels).float().mean().item()
    return {"state": model.state_dict(), "error": wrong}, epochs


@pytest.fixture(scope="module")
def plain() -> dict:
    return train(None, updates=4)[0]


NAMES = [*OBJECTIVES]


@pytest.mark.parametrize("name", NAMES)
def test_each_trains_another_way_the_same_way_twice_and_learns(name, plain):
    one, epochs = train(make(name), updates=24)
    assert one["error"] < 0.1
    assert all(epoch.synthetic_loss is not None and epoch.synthetic_loss >= 0 for epoch in epochs)
    assert epochs[-1].images == 360  # of the real ones alone
    short, again = (train(make(name), updates=4)[0] for _ in range(2))
    assert same(short, again)
    assert not same(short, plain)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gda", {"dtype": "bfloat16"}),
        ("gda_multi_head", {"ema_decay": 0.5, "optimizer": "adamw", "lr": 0.02}),
        ("gda_ssl", {"dropout": True}),
        ("pcr", {"sam": SAM}),
        ("real_consistency", {"augmentations": {"mixup": {}}}),
        ("mgr", {"dropout": True, "sam": SAM}),
        ("mgr", {"dtype": "bfloat16"}),
        ("gda_mps", {"clip_norm": 1.0}),
    ],
    ids=str,
)
def test_a_training_that_goes_on_gives_the_bits_of_one_that_was_not_interrupted(name, options):
    options = {"updates": 9, **options}
    whole, epochs = train(make(name), **options)
    saved = Saved(6)
    with pytest.raises(KeyboardInterrupt):
        train(make(name), keeper=saved, **options)
    state = torch.load(io.BytesIO(saved.states[-1]), weights_only=True)
    resumed, seen = train(make(name), state=state, **options)
    assert same(resumed, whole)
    assert seen == epochs


def step_of(model: Any, objective: SyntheticObjective, update: int = 0) -> Any:
    from gdacli.training_step import Step

    parameters = [*model.parameters(), *objective.parameters()]
    real = [torch.zeros_like(parameter) for parameter in parameters]
    return Step(update, 1, 0.1, model, model.logits_and_last_features, "float32", parameters, real, World(), 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_layer_gets_a_gradient_only_where_the_table_says_so(name):
    model = create_model("convnet", 2, {"width": 4}, 0).train()
    objective = make(name)
    step = step_of(model, objective)
    names = [key for key, _ in model.named_parameters()] + ["own"] * len(objective.parameters())
    gradients = list(zip(names, objective.gradients(step), strict=True))
    of_head = [value for key, value in gradients if key.startswith("net.head")]
    assert of_head
    assert any(value.any() for value in of_head) is OBJECTIVES[name].trains_last_layer
    assert any(value.any() for key, value in gradients if key.startswith("net.features"))


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_a_second_view_matter_only_where_the_table_says_so(name):
    model = create_model("convnet", 2, {"width": 4}, 0).eval()
    term = make(name)._term
    images = generated()
    views = images.views_of(drawn := images.draw(0), drawn.z)
    others = replace(views, labels=1 - views.labels)
    with torch.no_grad():
        losses = [term(model.logits_and_last_features, each) for each in (views, others)]
        assert losses[0].shape == views.labels.shape
        assert torch.equal(*losses) is not OBJECTIVES[name].labelled
        alone = replace(views, strong=None)
        if OBJECTIVES[name].two_views:
            with pytest.raises(ValueError, match="two views"):
                term(model.logits_and_last_features, alone)
        else:
            assert torch.equal(term(model.logits_and_last_features, alone), losses[0])


def test_params_know_the_objectives_of_the_table():
    kinds = OBJECTIVES.items()
    assert set(objective_sections.OBJECTIVES) == {"cross_entropy", *OBJECTIVES}
    assert set(objective_sections.SEARCHING) == {name for name, kind in kinds if kind.images == "found"}
    assert set(objective_sections.CONSISTENCY) == {name for name, kind in kinds if kind.two_views}


def test_a_head_of_its_own_is_trained_and_the_classifiers_is_not():
    model = create_model("convnet", 2, {"width": 4}, 0).train()
    objective = make("gda_multi_head")
    names = [key for key, _ in model.named_parameters()] + ["own.weight", "own.bias"]
    gradients = dict(zip(names, objective.gradients(step_of(model, objective)), strict=True))
    assert all(not value.any() for key, value in gradients.items() if key.startswith("net.head"))
    assert gradients["own.weight"].abs().max() > 0


def test_the_weight_is_that_of_the_term_and_the_loss_is_told_without_it():
    model = create_model("convnet", 2, {"width": 4}, 0).train()
    parts = []
    for weight in (0.5, 1.0):
        objective = SyntheticObjective(OBJECTIVES["pcr"].term, generated(), weight=weight)
        parts.append((objective.gradients(step_of(model, objective)), objective.losses.clone()))
    assert torch.equal(parts[0][1], parts[1][1])
    assert all(torch.allclose(2 * half, whole) for half, whole in zip(parts[0][0], parts[1][0], strict=True))


@pytest.mark.parametrize(("moves", "equal"), [(False, True), (True, False)])
def test_synthetic_images_move_the_running_statistics_only_if_told_so(moves, equal):
    model = create_model("convnet", 2, {"width": 4}, 0).train()
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    objective = SyntheticObjective(OBJECTIVES["pcr"].term, generated(), weight=1.0, moves_statistics=moves)
    objective.gradients(step_of(model, objective))
    after = dict(model.named_buffers())
    assert before
    assert all(torch.equal(value, after[name]) for name, value in before.items()) is equal


@pytest.mark.parametrize("gradient", ["finite_differences", "exact"])
def test_a_step_of_the_search_leaves_the_classifier_as_it_was(gradient):
    model = create_model("convnet", 2, {"width": 4}, 0).train()
    objective = make("mgr", gradient=gradient)
    before = {name: value.clone() for name, value in model.state_dict().items() if "num_batches" not in name}
    objective.gradients(step_of(model, objective))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())


SEARCHES: list[dict[str, Any]] = [
    {"gradient": "exact"},
    {"kl_weight": 0.0},
    {"kl_reduction": "sum"},
    {"inner_lr": 0.5},
    {"criterion": OBJECTIVES["gda"].term},
    {"criterion": OBJECTIVES["pcr"].term},
    {"finder": None},
    *({"finder": Finder(4, kind, 6, 0)} for kind in ("residual_shallow", "mlp", "linear")),
]


@pytest.mark.parametrize("search", SEARCHES, ids=range(len(SEARCHES)))
def test_every_way_of_searching_finds_other_images(search):
    model = create_model("convnet", 2, {"width": 4}, 0).train()
    seen = []
    given: list[dict[str, Any]] = [{}, search]
    for options in given:
        objective = make("mgr", **options)
        for update in range(2):
            objective.gradients(step_of(model, objective, update))
        seen.append(objective.losses)
    assert not torch.equal(*seen)


def test_no_number_in_the_search_is_one_line():
    with pytest.raises(GdaError, match=r"train.finder: the finder's weights are no longer numbers: lower .*lr"):
        train(make("mgr", lr=1e30, kl_weight=1e30))


def test_latent_noise_makes_the_second_view():
    images = generated(strong=None, latent_noise=0.01)
    drawn = images.draw(0)
    assert not torch.equal(images.draw(1).z, drawn.z)
    assert drawn.noise is not None
    assert drawn.noise.var() == pytest.approx(0.01, rel=0.5)
    views = images.views_of(drawn, drawn.z)
    assert views.strong is not None
    assert 0 < (views.strong - views.plain).abs().max() < 0.2
    both = generated(latent_noise=0.01).views_of(drawn, drawn.z)
    assert both.strong is not None
    assert not torch.equal(both.strong, views.strong)


def test_shares_of_processes_are_slices_of_what_one_sees():
    class Two(World):
        def gather(self, mine: torch.Tensor, counts: Any) -> torch.Tensor:
            raise AssertionError("a generated batch is not gathered")

    whole = generated(latent_noise=0.01)
    drawn = whole.draw(3)
    views = whole.views_of(drawn, drawn.z)
    parts = [generated(latent_noise=0.01, world=Two(rank, 2)).views_of(drawn, drawn.z) for rank in range(2)]
    assert torch.equal(torch.cat([part.plain for part in parts]), views.plain)
    assert torch.equal(torch.cat([part.images[1] for part in parts]), views.images[1])
    assert {part.count for part in parts} == {12}


def test_stored_images_come_pass_by_pass_from_any_update_on():
    one, other = stored(batch_size=25), stored(batch_size=25)
    first = [one.views_of(update, 1) for update in range(5)]
    later = other.views_of(3, 1)
    assert torch.equal(later.plain, first[3].plain)
    assert torch.equal(later.images[1], first[3].images[1])
    assert [len(views.labels) for views in first] == [25, 25, 10, 25, 25]
    labels = torch.cat([views.labels for views in first[:3]])
    assert labels.bincount().tolist() == [30, 30]


def test_consistency_in_numbers():
    uda = partial(uda_consistency, temperature=1.0, confidence=0.8)
    strong, plain = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert pseudo_consistency(strong, plain).tolist() == [5.0, 25.0]
    logits = torch.tensor([[4.0, 0.0], [0.1, 0.0]])
    found = uda(logits, logits)
    assert found.tolist() == [pytest.approx(0, abs=1e-7), 0.0]
    away = uda_consistency(torch.zeros(2, 2, requires_grad=True), logits, temperature=0.5, confidence=0.8)
    wanted = logits[0].mul(2).softmax(0)
    assert away[0].item() == pytest.approx((wanted * (wanted.log() - torch.tensor(0.5).log())).sum().item(), rel=1e-5)
    assert away[1].item() == 0
    for gradient_of_plain, consistency in ((False, uda), (True, pseudo_consistency)):
        strong, plain = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 2.0]], requires_grad=True)
        consistency(strong, plain).sum().backward()
        assert strong.grad is not None
        assert (plain.grad is not None) is gradient_of_plain
