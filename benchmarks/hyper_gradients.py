"""How well finite differences find the hyper-gradient of meta pseudo sampling, beside the exact one.

On the digits, with a generator that is linear in z (per class the mean and the first principal directions), the
networks of the project after some updates. Of each estimate:

cosine, norm: against the exact gradient with respect to the images, which sees no kinks of ReLU and max pooling
fall: of the validation loss one step ahead when all images are moved along the estimate, as a share of that along the
  exact one, for moves of several lengths (in the Euclidean norm over the batch); higher is better
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from gdacli.distributed import World
from gdacli.meta_gradient import exact, finite_differences
from gdacli.models import Classifier, create_model
from gdacli.objectives import OBJECTIVES
from gdacli.sam import running_statistics_kept
from gdacli.synthetic_images import Generated, Views

MODELS: dict[str, dict[str, Any]] = {"convnet": {"width": 16}, "preact_resnet18": {"width": 8}}
WEIGHTS = {"pcr": 0.1, "gda": 1.0}
CONSTANTS = (0.001, 0.01, 0.1, 1.0)
LENGTHS = (0.1, 1.0, 5.0)
LATENT, BATCH, RATE = 16, 64, 0.05


class Principal(nn.Module):
    """Images of a class along the directions in which its digits vary most."""

    latent_dim, conditional = LATENT, True

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        means, directions = [], []
        for label in range(10):
            flat = images[labels == label, 0].flatten(1)
            _, values, right = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
            means.append(flat.mean(0))
            directions.append(right[:LATENT] * (values[:LATENT, None] / len(flat) ** 0.5))
        self.means, self.directions = torch.stack(means), torch.stack(directions)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        flat = self.means[labels] + torch.einsum("bz,bzp->bp", z, self.directions[labels])
        return flat.clamp(0, 1).view(-1, 1, 8, 8).expand(-1, 3, 8, 8)


def train(model: Classifier, images: torch.Tensor, labels: torch.Tensor, updates: int) -> None:
    """Train by plain SGD."""
    optimizer = torch.optim.SGD(model.parameters(), RATE, 0.9)
    for _ in range(updates):
        rows = torch.randint(len(images), (BATCH,))
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measure(model: Classifier, name: str, generated: Generated, data: Sequence[torch.Tensor], number: int) -> dict:
    """Return the figures of every estimate for one batch."""
    images, labels, held_out, truth = data
    drawn = generated.draw(number)
    views = generated.views_of(drawn, drawn.z).cut_off()
    seen = views.images if name == "pcr" else [views.plain]
    rows, others = torch.randint(len(images), (BATCH,)), torch.randint(len(held_out), (BATCH,))
    parameters, names = list(model.parameters()), [key for key, _ in model.named_parameters()]
    weight, term = WEIGHTS[name], OBJECTIVES[name].term

    def loss(of: Views) -> torch.Tensor:
        return term(model.logits_and_last_features, of).sum() / BATCH

    def ahead(own: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [p.detach() - RATE * (r + weight * o.detach()) for p, r, o in zip(parameters, real, own, strict=True)]

    def validation(at: Sequence[torch.Tensor]) -> torch.Tensor:
        logits = torch.func.functional_call(model, dict(zip(names, at, strict=True)), (held_out[others],))
        return F.cross_entropy(logits, truth[others])

    def fall(estimate: Sequence[torch.Tensor], length: float) -> float:
        norm = torch.nn.utils.get_total_norm(list(estimate))
        moved = [image.detach() + length * each / norm for image, each in zip(seen, estimate, strict=True)]
        there = Views(moved[0], moved[1] if len(moved) > 1 else None, views.labels, BATCH)
        own = torch.autograd.grad(loss(there), parameters, materialize_grads=True)
        return (before - validation(ahead(own))).item()

    with running_statistics_kept(model):
        real = torch.autograd.grad(F.cross_entropy(model(images[rows]), labels[rows]), parameters)
        gradient = torch.autograd.grad(loss(views), parameters, create_graph=True, materialize_grads=True)
        at = [each.requires_grad_() for each in ahead(gradient)]
        before = validation(at)
        direction = torch.autograd.grad(before, at)
        estimates = {"exact": exact(gradient, direction, seen)}
        for constant in CONSTANTS:
            found = finite_differences(lambda: loss(views), parameters, direction, seen, constant=constant)
            estimates[f"{constant:g}"] = found
        wanted = torch.cat([each.flatten() for each in estimates["exact"]])
        figures = {}
        for key, estimate in estimates.items():
            flat = torch.cat([each.flatten() for each in estimate])
            cosine = F.cosine_similarity(flat, wanted, dim=0).item()
            falls = [fall(estimate, length) for length in LENGTHS]
            figures[key] = [cosine, (flat.norm() / wanted.norm()).item(), *falls]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=5, help="over which figures are averaged")
    parser.add_argument("--updates", type=int, default=200, help="of the training before")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div(16)[:, None].expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(digits.target).long()
    data = images[:900], labels[:900], images[900:1300], labels[900:1300]
    generated = Generated(
        Principal(*data[:2]), num_classes=10, batch_size=BATCH, image_size=8, strong={"num_ops": 2, "magnitude": 9},
        latent_noise=0.0, dtype="float32", device=torch.device("cpu"), seed=0, world=World(),
    )  # fmt: skip
    result: dict[str, Any] = {}
    for architecture, args in MODELS.items():
        torch.manual_seed(0)
        model = create_model(architecture, 10, args, 0).train()
        train(model, *data[:2], options.updates)
        for name in WEIGHTS:
            batches = [measure(model, name, generated, data, number) for number in range(options.batches)]
            means = {key: torch.tensor([batch[key] for batch in batches]).mean(0) for key in batches[0]}
            result[f"{architecture} {name}"] = {
                key: {
                    "cosine": each[0].item(),
                    "norm": each[1].item(),
                    "fall": (each[2:] / means["exact"][2:]).tolist(),
                }
                for key, each in means.items()
            }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for setting, estimates in result.items():
        print(f"{setting}, after {options.updates} updates; fall at lengths {', '.join(map(str, LENGTHS))}")
        for key, each in estimates.items():
            falls = "  ".join(f"{value:5.2f}" for value in each["fall"])
            print(f"  {key:>6}  cosine {each['cosine']:6.3f}  norm {each['norm']:6.2f}  fall {falls}")


if __name__ == "__main__":
    main()
