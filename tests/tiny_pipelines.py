"""Tiny pipelines of further families of models, with random weights in their real on-disk layout."""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import sentencepiece
import torch
from diffusers import (
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from tiny_models import BETAS, WORDS, stable_diffusion, text_config, tiny_vae, write_pipeline, write_tokenizer
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SIZE = 32
VAE = (8, 8, 8)


def lcm(folder: Path) -> Path:
    """Write a latent consistency model: Stable Diffusion 1.x that is told the guidance."""
    return stable_diffusion(folder, size=SIZE, vae_channels=VAE, guidance_width=16)


def sdxl(
    folder: Path,
    *,
    size: int = SIZE,
    unet_channels: Sequence[int] = (16, 32),
    vae_channels: Sequence[int] = VAE,
    widths: tuple[int, int] = (32, 40),
    projection: int = 24,
    layers_per_block: int = 1,
    depths: Sequence[int] = (1, 2),
    heads: Sequence[int] = (2, 4),
    time_width: int = 8,
) -> Path:
    """Write a Stable Diffusion XL; see `stable_diffusion` for most sizes.

    Args:
        folder: gets the layout.
        size, unet_channels, vae_channels, layers_per_block: of UNet and VAE; all levels but the first have attention.
        widths: of the two text encoders.
        projection: width of the second one's pooled states.
        depths, heads: of the attention, per level.
        time_width: of each of the six sizes that the UNet is told.
    """
    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer_2")
    levels = len(unet_channels)
    unet = UNet2DConditionModel(
        sample_size=size // 2 ** (len(vae_channels) - 1),
        block_out_channels=tuple(unet_channels),
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        cross_attention_dim=sum(widths),
        attention_head_dim=tuple(heads),
        transformer_layers_per_block=tuple(depths),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=6 * time_width + projection,
        norm_num_groups=8,
    )
    parts = {
        "unet": unet,
        "vae": tiny_vae(
            size, vae_channels, layers_per_block=layers_per_block, scaling_factor=0.13025, force_upcast=True
        ),
        "text_encoder": CLIPTextModel(text_config(vocabulary, widths[0])),
        "text_encoder_2": CLIPTextModelWithProjection(text_config(vocabulary, widths[1], projection_dim=projection)),
        "scheduler": EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **BETAS),
    }
    tokenizers = {"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer"}
    return write_pipeline(folder, "StableDiffusionXLPipeline", parts, force_zeros_for_empty_prompt=True, **tokenizers)


def with_safety_checker(source: Path, folder: Path, threshold: float) -> Path:
    """Copy a model and give it a safety checker that flags what is nearer to its concepts than a cosine."""
    shutil.copytree(source, folder)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"image_size": 16, "patch_size": 8, **sizes}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    checker.concept_embeds_weights.data.fill_(threshold)
    checker.special_care_embeds_weights.data.fill_(2.0)
    checker.save_pretrained(folder / "safety_checker")
    extractor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    extractor.save_pretrained(folder / "feature_extractor")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def deepfloyd_if(folder: Path) -> Path:
    """Write the first stage of a DeepFloyd IF, smaller also in its pixels."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=16,
        encoder_hid_dim=32,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        attention_head_dim=8,
        act_fn="gelu",
        class_embed_type=None,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        time_embedding_act_fn="gelu",
        conv_in_kernel=3,
        conv_out_kernel=3,
    )
    with torch.no_grad():
        unet.conv_out.weight[3:] *= 0.2  # variances within their bounds, as trained ones are
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
    )
    vocabulary = write_t5_tokenizer(folder / "tokenizer")
    parts = {"unet": unet, "text_encoder": t5(vocabulary), "scheduler": scheduler}
    missing = dict.fromkeys(("feature_extractor", "safety_checker", "watermarker"))
    return write_pipeline(folder, "IFPipeline", parts, tokenizer="T5Tokenizer", **missing)


def flux(folder: Path, *, guidance_embeds: bool = False) -> Path:
    """Write a Flux: schnell, or dev, which is told the guidance and shifts its times by the size of the image."""
    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "tokenizer")
    words = write_t5_tokenizer(folder / "tokenizer_2", whole=True)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=guidance_embeds,
    )
    vae = tiny_vae(
        SIZE, VAE, shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False
    )
    shift = {"shift": 3.0, "use_dynamic_shifting": True} if guidance_embeds else {"shift": 1.0}
    parts = {
        "transformer": transformer,
        "vae": vae,
        "text_encoder": CLIPTextModel(text_config(vocabulary, 32)),
        "text_encoder_2": t5(words),
        "scheduler": FlowMatchEulerDiscreteScheduler(base_shift=0.5, max_shift=1.15, **shift),
    }
    tokenizers = {"tokenizer": "CLIPTokenizer", "tokenizer_2": "T5TokenizerFast"}
    return write_pipeline(folder, "FluxPipeline", parts, **tokenizers)


def stable_diffusion_3(folder: Path) -> Path:
    """Write a Stable Diffusion 3 without its T5, a family that is passed through to its own pipeline."""
    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer_2")
    transformer = SD3Transformer2DModel(
        sample_size=SIZE // 4,
        patch_size=2,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=48,
        caption_projection_dim=32,
        pooled_projection_dim=48,
        pos_embed_max_size=8,
        in_channels=4,
        out_channels=4,
    )
    encoder = text_config(vocabulary, 24, projection_dim=24)
    parts = {
        "transformer": transformer,
        "vae": tiny_vae(SIZE, VAE, shift_factor=0.06, scaling_factor=1.5),
        "text_encoder": CLIPTextModelWithProjection(encoder),
        "text_encoder_2": CLIPTextModelWithProjection(encoder),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
    others = {"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer", "tokenizer_3": None, "text_encoder_3": None}
    return write_pipeline(folder, "StableDiffusion3Pipeline", parts, **others)


def t5(vocabulary: int) -> T5EncoderModel:
    """Return a T5 text encoder of version 1.1, of random weights."""
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=1,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )


def write_t5_tokenizer(folder: Path, *, whole: bool = False) -> int:
    """Train T5's kind of tokenizer, a unigram model of sentencepiece, on WORDS; returns the size of its vocabulary.

    Args:
        folder: gets `spiece.model` and the configs, as DeepFloyd's repositories have it.
        whole: also `tokenizer.json`, as Flux's have it.
    """
    folder.mkdir(parents=True)
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS), "abcdefghijklmnopqrstuvwxyz ,."] * 4),
        model_writer=trained,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    (folder / "spiece.model").write_bytes(trained.getvalue())
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": 77, "extra_ids": 0, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = T5Tokenizer.from_pretrained(folder)
    if whole:
        tokenizer.save_pretrained(folder)
    return len(tokenizer)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "lcm": lcm,
    "sdxl": sdxl,
    "if": deepfloyd_if,
    "flux": flux,
    "flux_dev": lambda folder: flux(folder, guidance_embeds=True),
}
"""Besides Stable Diffusion 1.x."""
