"""The model's latent space: the first noise of a few deterministic steps."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from gdacli.denoiser import PredictionType
from gdacli.diffusion import add_noise
from gdacli.errors import GdaError
from gdacli.generators.class_conditional.network import load_network, make_denoiser


def latent_generator(
    folder: Path, *, class_names: Sequence[str], image_size: int, device: torch.device, num_inference_steps: int
) -> "FirstNoise":
    """Load what `fit` saved as a `LatentGenerator`; see `gdacli.generators`.

    Raises:
        GdaError: the model was trained on another number of classes or another image size; there is a single step.
    """
    if num_inference_steps < 2:
        raise GdaError(
            f"train.synthetic.num_inference_steps: found {num_inference_steps}; allowed: 2 or more: each pixel of a "
            "single step is cut off at black or white, so that the images have no gradient"
        )
    unet, prediction_type = load_network(folder, class_names=class_names, image_size=image_size, dtype=torch.float32)
    return FirstNoise(unet.to(device).requires_grad_(False), prediction_type, num_inference_steps)


class FirstNoise:
    """A `LatentGenerator`: z, [B, 3 H W], is the noise from which DDIM without guidance goes to the image.

    An evaluation of the network keeps nothing for the gradient but its input, and is made again on the way back: the
    memory is that of one evaluation, whatever the number of steps. (`torch.func.grad` refuses such evaluations:
    gradients are those of `torch.autograd`, of first order.)

    Args:
        unet: in eval mode.
        prediction_type: what it predicts.
        num_inference_steps: evaluations of the network per image.

    Source: meta-generative-regularization paper, appendix B.3 ("search the first step noise of the diffusion
    process"), with this model in the place of EDM; DDIM: Song et al. 2021, Eq. 12 with sigma = 0; checkpoints: Chen et
    al. 2016, one per step.
    """

    def __init__(self, unet: UNet2DModel, prediction_type: PredictionType, num_inference_steps: int) -> None:
        self._unet, self._size = unet, int(unet.config.sample_size)
        self.latent_dim = 3 * self._size**2
        self.conditional = unet.config.num_class_embeds is not None
        # In eval mode the network draws nothing that would have to be drawn again.
        again = partial(checkpoint, unet, use_reentrant=False, preserve_rng_state=False)
        self._denoiser = make_denoiser(
            unet,
            again,
            prediction_type=prediction_type,
            noise_schedule="native",
            solver="ddim",
            num_inference_steps=num_inference_steps,
            memory_format=torch.contiguous_format,
        )
        self._levels = self._denoiser.schedule.levels(1.0, num_inference_steps)

    def __call__(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `LatentGenerator`; what strength 1 makes of a grey image and this noise."""
        noise = z.unflatten(1, (3, self._size, self._size))
        x = add_noise(torch.zeros_like(noise), self._levels[0].alpha_bar, noise)
        made = self._denoiser.run(x, self._levels, [(labels,)], [], _no_noise)
        return (made + 1) / 2

    def parameters(self) -> Iterator[nn.Parameter]:
        """See `LatentGenerator`."""
        return self._unet.parameters()


def _no_noise() -> torch.Tensor:
    raise AssertionError("DDIM adds no noise")
