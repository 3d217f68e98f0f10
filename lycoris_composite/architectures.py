"""The models that can be trained: one row for each trainer, with all that this project knows of it. Upstream knows the rest.

Whoever wants to know what differs between models asks here, and no name of a trainer stands anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BUILTIN = "builtin"  # the embedded trainer
DEFAULT_TRAINER = "train_network"
# How the captions of a model are written: as tags between commas, or as sentences.
TAGS = "{left}/{right}/COMPOSITE, {left_tags}, {right_tags}"
SENTENCES = "{left}/{right}/COMPOSITE. Left: {left_caption} Right: {right_caption}"


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer by its `name` on the hub, and transformers' class that reads it. Upstream takes it from the folder that
    kohya's option `key` names, else from the folder `bundled` of sd-scripts; from `tokenizer_cache_dir` (in the hub's own
    layout where `is_hub_layout`) or the hub's cache where a row has neither."""

    name: str
    kind: str = "AutoTokenizer"
    key: str = ""
    bundled: str = ""
    is_hub_layout: bool = False


@dataclass(frozen=True)
class Encoder:
    """A text encoder that reads captions token by token, so that what its limit cuts is lost.

    `attribute` and `limit_attribute` are upstream's names in its tokenize strategy. The limit is kohya's option `key`, or
    `limit` where that is not set; `around` of these tokens are no caption's (begin, end, a fixed text).
    CLIP's option counts without them.
    """

    tokenizer: Tokenizer
    attribute: str
    limit: int
    around: int
    key: str = ""
    limit_attribute: str = ""


@dataclass(frozen=True)
class Architecture:
    """What differs between models, and kohya's names for it."""

    name: str
    strategy: str = ""  # upstream's class that makes tokens
    encoders: tuple[Encoder, ...] = ()
    # Whose limits do not count: they read the words as an encoder's does (SDXL's second), their encoder reads the first 77
    # tokens beside one that reads all (CLIP's in Flux and SD3), or it reads only what stands in quotes (byT5).
    others: tuple[Tokenizer, ...] = ()
    required: tuple[str, ...] = ()  # options with files that have to be named, but for what the checkpoint holds itself
    optional: tuple[str, ...] = ()  # options with files that a model does without
    inside: Mapping[str, str] = field(default_factory=dict, hash=False)  # how the names of an option's tensors begin there
    marks: tuple[str, ...] = ()  # one of these stands in a name in each checkpoint of the model
    pipeline: str = ""  # diffusers' class in a folder with the model; "" where upstream reads no folder
    bucket_steps: int = 1  # what bucket_reso_steps is a multiple of (upstream's `verify_bucket_reso_steps`)
    vae_factor: int = 8  # pixels of a latent
    latent_channels: int = 16
    latents: str | None = None  # ends the names of upstream's cache files
    caption: str = TAGS  # the template that fits how its captions are written
    caption_bytes: int | None = None  # of a caption's outputs (float32, at the usual limit); None where upstream caches none
    is_guided: bool = True  # whether a negative prompt changes the samples
    samples_in_training: bool = True  # whether upstream can sample while the text encoder trains
    runs_on_cpu: bool = True  # whether its precision can be set
    ignored: tuple[str, ...] = ()  # options of every script that do nothing for it
    networks: tuple[str, ...] = ()  # upstream's network modules that are made for the model
    # What the small stand-in on which networks are tried (trainers/stand_in.py) has at each place: a class that networks look
    # for, or a linear layer's number of outputs, which some count on. Where it is empty, the stand-in is SD's.
    layers: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    text_models: tuple[str, ...] = ()  # the text encoders of the stand-in, as their classes' names begin
    unet_class: str = ""  # upstream's class by which its networks know the model

    @property
    def tokenizers(self) -> tuple[Tokenizer, ...]:
        return tuple(dict.fromkeys((*(encoder.tokenizer for encoder in self.encoders), *self.others)))

    @property
    def has_unet(self) -> bool:
        return self.pipeline.startswith("StableDiffusion")


CLIP_L = Tokenizer("openai/clip-vit-large-patch14", "CLIPTokenizer")
CLIP_G = Tokenizer("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "CLIPTokenizer")
_T5 = Tokenizer("google/t5-v1_1-xxl", "T5TokenizerFast")
_ANIMA_T5 = Tokenizer("google/t5-v1_1-xxl", "T5TokenizerFast", key="t5_tokenizer_path", bundled="configs/t5_old")
_QWEN3 = Tokenizer("Qwen/Qwen3-0.6B", key="qwen3", bundled="configs/qwen3_06b")
_GEMMA = Tokenizer("google/gemma-2-2b", is_hub_layout=True)
_QWEN_VL = Tokenizer("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2TokenizerFast")
_BYT5 = Tokenizer("google/byt5-small")
# What is in the files of weights that models need beside their own.
PARTS = {
    **dict.fromkeys(("vae", "ae"), "VAE"),
    "clip_l": "text encoder CLIP-L",
    "clip_g": "text encoder CLIP-G",
    "t5xxl": "text encoder T5-XXL",
    "qwen3": "text encoder Qwen3-0.6B",
    "gemma2": "text encoder Gemma 2 2B",
    "text_encoder": "text encoder Qwen2.5-VL",
    "byt5": "text encoder byT5",
}

_UNET_NETWORKS = ("networks.lora", "networks.lora_fa", "networks.dylora", "networks.oft")


def _clip(attribute: str) -> Encoder:
    return Encoder(CLIP_L, attribute, 77, 2, "max_token_length", "max_length")


def _t5(limit: int) -> Encoder:
    return Encoder(_T5, "t5xxl", limit, 1, "t5xxl_max_token_length", "t5xxl_max_length")


CHROMA = "chroma"  # kohya's model_type of a model that Flux's trainer trains too, without CLIP-L
# How it is sampled, as sd-scripts' guide has it: Flux's own guidance is off, and the usual one is on.
CHROMA_GUIDANCE = {"guidance_scale": 0.0, "scale": 4.0}
CHROMA_MARK = "distilled_guidance_layer."  # in names of its tensors
_SD_FILES: dict = {"marks": ("cond_stage_model.",), "pipeline": "StableDiffusionPipeline"}
ARCHITECTURES = {
    BUILTIN: Architecture("SD", encoders=(_clip("tokenizer"),), **_SD_FILES, latent_channels=4),
    "train_network": Architecture(
        "SD",
        strategy="SdTokenizeStrategy",
        encoders=(_clip("tokenizer"),),
        **_SD_FILES,
        bucket_steps=64,
        latent_channels=4,
        latents="_sd.npz",
        networks=_UNET_NETWORKS,
    ),
    "sdxl_train_network": Architecture(
        "SDXL",
        strategy="SdxlTokenizeStrategy",
        encoders=(_clip("tokenizer1"),),
        others=(CLIP_G,),
        marks=("conditioner.embedders.",),
        pipeline="StableDiffusionXLPipeline",
        bucket_steps=32,
        latent_channels=4,
        latents="_sdxl.npz",
        caption_bytes=4 * (77 * (768 + 1280) + 1280),
        networks=(*_UNET_NETWORKS, "networks.loha", "networks.lokr"),
        text_models=("CLIP", "CLIP"),
        layers={
            "input_blocks.3.0": "Downsample2D",
            "input_blocks.4.0": "ResnetBlock2D",
            "input_blocks.4.1": "Transformer2DModel",
            "output_blocks.2.2": "Upsample2D",
        },
        unet_class="library.sdxl_original_unet.SdxlUNet2DConditionModel",
    ),
    "anima_train_network": Architecture(
        "Anima",
        strategy="AnimaTokenizeStrategy",
        encoders=(
            Encoder(_QWEN3, "qwen3_tokenizer", 512, 0, "qwen3_max_token_length", "qwen3_max_length"),
            Encoder(_ANIMA_T5, "t5_tokenizer", 512, 1, "t5_max_token_length", "t5_max_length"),
        ),
        required=("qwen3", "vae"),
        optional=("llm_adapter_path",),
        marks=("blocks.0.adaln_modulation_self_attn.",),
        bucket_steps=16,
        latents="_anima.npz",
        caption_bytes=4 * 512 * (1024 + 3),
        networks=("networks.lora_anima", "networks.loha", "networks.lokr"),
        layers={
            "blocks.0": "Block",
            "blocks.0.self_attn.q_proj": 2048,
            "blocks.0.mlp.layer1": 8192,
            "llm_adapter.blocks.0": "LLMAdapterTransformerBlock",
            "llm_adapter.blocks.0.mlp.0": 4096,
        },
        text_models=("Qwen3",),
    ),
    "flux_train_network": Architecture(
        "Flux",
        strategy="FluxTokenizeStrategy",
        encoders=(_t5(512),),
        others=(CLIP_L,),
        required=("clip_l", "t5xxl", "ae"),
        marks=("double_blocks.0.img_attn.", "single_transformer_blocks.0."),  # Chroma too; of diffusers
        pipeline="FluxPipeline",
        bucket_steps=64,
        latents="_flux.npz",
        caption=SENTENCES,
        caption_bytes=4 * 512 * (4096 + 4),
        is_guided=False,
        ignored=("xformers",),
        networks=("networks.lora_flux", "networks.oft_flux"),
        layers={
            "double_blocks.0": "DoubleStreamBlock",
            "double_blocks.0.img_attn": "SelfAttention",
            "double_blocks.0.img_attn.qkv": 3 * 3072,
            "double_blocks.0.img_mlp.0": 4 * 3072,
            "single_blocks.0": "SingleStreamBlock",
            "single_blocks.0.linear1": 7 * 3072,
        },
        text_models=("CLIP", "T5"),
    ),
    "sd3_train_network": Architecture(
        "SD3",
        strategy="Sd3TokenizeStrategy",
        encoders=(_t5(256),),
        others=(CLIP_L, CLIP_G),
        required=("clip_l", "clip_g", "t5xxl", "vae"),
        inside={
            **{key: f"text_encoders.{key}.transformer." for key in ("clip_l", "clip_g", "t5xxl")},
            "vae": "first_stage_model.",
        },
        marks=("joint_blocks.0.",),
        bucket_steps=32,
        latents="_sd3.npz",
        caption=SENTENCES,
        caption_bytes=4 * (256 * 4096 + 77 * 2048 + 2048),
        ignored=("xformers",),
        networks=("networks.lora_sd3",),
        layers={
            "joint_blocks.0.context_block": "SingleDiTBlock",
            "joint_blocks.0.context_block.attn.qkv": 3 * 1536,
            "joint_blocks.0.context_block.mlp.fc1": 4 * 1536,
        },
        text_models=("CLIP", "CLIP", "T5"),
    ),
    "lumina_train_network": Architecture(
        "Lumina",
        strategy="LuminaTokenizeStrategy",
        encoders=(Encoder(_GEMMA, "tokenizer", 256, 1, "gemma2_max_token_length", "max_length"),),
        required=("gemma2", "ae"),
        marks=("cap_embedder.0.",),
        bucket_steps=64,
        latents="_lumina.npz",
        caption=SENTENCES,
        caption_bytes=4 * 256 * (2304 + 2),
        samples_in_training=False,
        ignored=("xformers",),
        networks=("networks.lora_lumina",),
        layers={
            "layers.0": "JointTransformerBlock",
            "layers.0.attention.qkv": 2304 + 2 * 768,
            "layers.0.feed_forward.w1": 4 * 2304,
        },
        text_models=("Gemma2",),
    ),
    "hunyuan_image_train_network": Architecture(
        "HunyuanImage",
        strategy="HunyuanImageTokenizeStrategy",
        encoders=(Encoder(_QWEN_VL, "vlm_tokenizer", 1024 + 34, 34 + 1),),  # its text before and behind the caption
        others=(_BYT5,),
        required=("text_encoder", "byt5", "vae"),
        marks=("double_blocks.0.img_attn_qkv.",),
        bucket_steps=64,
        vae_factor=32,
        latent_channels=64,
        latents="_hi.npz",
        caption=SENTENCES,
        caption_bytes=4 * 1024 * 3584,
        runs_on_cpu=False,
        networks=("networks.lora_hunyuan_image",),
        layers={
            "double_blocks.0": "MMDoubleStreamBlock",
            "double_blocks.0.img_attn_qkv": 3 * 3584,
            "double_blocks.0.img_mlp.fc1": 4 * 3584,
            "single_blocks.0": "MMSingleStreamBlock",
            "single_blocks.0.linear1": 7 * 3584,
        },
        text_models=("Qwen2_5_VL", "T5"),
    ),
}
_OTHER = Architecture("another model")


def architecture_of(trainer: str) -> Architecture:
    """A trainer's row; one that knows nothing for somebody's own script."""
    return ARCHITECTURES.get(trainer, _OTHER)
