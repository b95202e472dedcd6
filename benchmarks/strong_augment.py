"""Images per second of the differentiable RandAugment, forward and backward, beside Kornia's own, interleaved.

Both apply 2 operations of magnitude 9 or 10 to float images and give the gradient of the images; ours draws them for
each image, Kornia's `kornia.augmentation.auto.RandAugment` once for the batch.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from kornia.augmentation.auto import RandAugment

from gdacli.strong_augment import draw, strongly_augmented

SIZES = (32, 224)


def measure(size: int, rounds: int, batch_size: int = 64, device: str = "cpu") -> dict[str, Any]:
    """Return images/s of both, medians over the rounds, and the median of the rounds' ratios."""
    torch.manual_seed(0)  # Kornia draws from the global generator
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch_size, 3, size, size, device=device, requires_grad=True)
    upstream = torch.randn(images.shape, device=device)
    kornias = RandAugment(n=2, m=9, transformation_matrix_mode="skip")

    def ours() -> torch.Tensor:
        return strongly_augmented(images, draw(batch_size, generator, num_ops=2, magnitude=9, image_size=size))

    def theirs() -> torch.Tensor:
        return kornias(images)

    def seconds(augmented: Callable[[], torch.Tensor]) -> float:
        start = time.perf_counter()
        result = augmented()
        if result.requires_grad:  # Kornia's posterize and equalize have none
            torch.autograd.grad(result, images, upstream)
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    repeats = max(1, 16 * 32 // size)  # each draws cheap and dear operations: a round holds several batches
    rates: dict[str, list[float]] = {"ours": [], "kornia": []}
    for number in range(rounds + 1):  # the first round warms up
        taken = {"ours": 0.0, "kornia": 0.0}
        for _ in range(repeats):
            taken["ours"] += seconds(ours)
            taken["kornia"] += seconds(theirs)
        if number:
            for label, total in taken.items():
                rates[label].append(repeats * batch_size / total)
    return {
        **{label: statistics.median(values) for label, values in rates.items()},
        "ratio": statistics.median(a / b for a, b in zip(rates["ours"], rates["kornia"], strict=True)),
        "rounds": rates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = {str(size): measure(size, arguments.rounds, device=arguments.device) for size in SIZES}
    result = {
        "sizes": sizes,
        "ratios": {size: found["ratio"] for size, found in sizes.items()},
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": arguments.threads,
        "device": arguments.device,
    }
    if arguments.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    for size, found in sizes.items():
        print(f"64 images of {size} x {size}, images/s: ours {found['ours']:,.0f}, Kornia's {found['kornia']:,.0f}, "
              f"{found['ratio']:.2f} times")  # fmt: skip


if __name__ == "__main__":
    main()
