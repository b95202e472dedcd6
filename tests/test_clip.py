from pathlib import Path

import pytest
import torch
from tiny_models import clip

from gdacli.clip import load_clip
from gdacli.errors import GdaError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("clip")
    clip(made)
    return made


def test_the_score_is_the_cosine_that_transformers_gives(folder):
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    images = torch.randint(0, 256, (4, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prompts = ["a photo of disc", "a photo of square", "a photo of disc", "ring"]
    scores = load_clip(folder, torch.device("cpu"))(images, prompts)
    model = CLIPModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(prompts, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessor.from_pretrained(folder)(images=list(images), return_tensors="pt")
    with torch.inference_mode():
        logits = model(**tokens, **pixels).logits_per_image.diagonal() / model.logit_scale.exp()
    assert scores == pytest.approx(logits.tolist(), abs=1e-5)
    assert len(set(scores)) == 4


def test_a_score_does_not_depend_on_its_neighbours(folder):
    score = load_clip(folder, torch.device("cpu"))
    images = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    forward, backward = score(images, ["disc"] * 32), score(images.flip(0), ["disc"] * 32)
    assert forward == backward[::-1]


def test_a_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(GdaError, match=r"generate.clip_model: .* holds no CLIP model"):
        load_clip(tmp_path, torch.device("cpu"))
