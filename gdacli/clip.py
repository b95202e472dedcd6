"""How well an image fits its prompt, by a CLIP model; transformers is loaded only when that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdacli.errors import GdaError

if TYPE_CHECKING:
    import torch

    from gdacli.scores import ClipScore


def load_clip(folder: Path, device: torch.device) -> ClipScore:
    """Load a CLIP model in transformers' layout.

    Returns:
        a function of images, uint8 [B, 3, H, W], and B prompts: the cosine of each image's and prompt's embedding, in
        [-1, 1], higher = fits better.

    Raises:
        GdaError: the folder holds no CLIP model.

    Source: Hessel et al. 2021 (CLIPScore), without its factor of 2.5 and its cut at 0.
    """
    import torch
    import torch.nn.functional as F
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    try:
        model: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise GdaError(f"generate.clip_model: {folder} holds no CLIP model ({' '.join(str(error).split())})") from error
    model.to(device).eval()
    known: dict[str, torch.Tensor] = {}

    def embed(prompt: str) -> torch.Tensor:
        if prompt not in known:
            tokens = tokenizer(prompt, truncation=True, return_tensors="pt").to(device)
            known[prompt] = F.normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=1)[0]
        return known[prompt]

    def score(images: torch.Tensor, prompts: Sequence[str]) -> list[float]:
        with torch.inference_mode():
            pixels = processor(images=list(images.cpu()), return_tensors="pt")["pixel_values"].to(device)
            # One by one: a transformer's last bits depend on an image's place in a batch.
            scores = []
            for image, prompt in zip(pixels, prompts, strict=True):
                seen = model.visual_projection(model.vision_model(pixel_values=image[None]).pooler_output)
                scores.append((F.normalize(seen[0], dim=0) * embed(prompt)).sum().item())
            return scores

    return score
