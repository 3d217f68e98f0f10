"""Random models of real size, for gpu.py: `python gpu_models.py NAME FOLDER --sd_scripts DIR`.

They are made where they are used, on the GPU and in 16 bits where there is one, so that nothing large is carried. What
upstream has as a class is built as upstream's own loader would build it. FOLDER/model.json, written last, holds the
config's keys for the files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench

SHEET = "model.json"
_VAE_BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_QWEN3_06B = {
    **{"vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28},
    **{"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960},
    **{"rope_theta": 1e6, "tie_word_embeddings": True},
}
_NOT_IN_FILES = ("seq", "dim_spatial_range", "dim_temporal_range", "inv_freq")  # Anima's buffers, made anew when it loads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MAKERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="the tests' tiny one")
    bench.add_checkout(parser)
    args = parser.parse_args()
    bench.use_checkout(args.sd_scripts)
    args.folder.mkdir(parents=True, exist_ok=True)
    maker = TINY_MAKERS[args.name] if args.tiny else MAKERS[args.name]
    part = args.folder / f"{SHEET}.part"
    part.write_text(json.dumps({key: str(path) for key, path in maker(args.folder).items()}), encoding="utf-8")
    part.rename(args.folder / SHEET)


@contextmanager
def _real_size(dtype: str) -> Iterator[None]:
    """Parameters are made on the GPU where there is one, and in `dtype`; a CPU would draw them for minutes."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            yield
    finally:
        torch.set_default_dtype(before)


def _save(module: Any, path: Path, prefix: str = "", without: Sequence[str] = ()) -> Path:
    """A safetensors file, which may not hold one piece of memory under two names."""
    from safetensors.torch import save_file

    tensors, seen = {}, set()
    for key, value in module.state_dict().items():
        if any(part in key for part in without):
            continue
        tensors[prefix + key] = value.clone() if value.data_ptr() in seen else value.contiguous()
        seen.add(value.data_ptr())
    save_file(tensors, path)
    return path


def _arguments_to(owner: Any, name: str, load: Callable[[], object]) -> tuple[tuple, dict]:
    """What one of upstream's loaders calls a class with. The loader ends there, and reads no file."""

    class Seen(Exception):
        pass

    def see(*args: Any, **kwargs: Any) -> None:
        raise Seen(args, kwargs)

    original = getattr(owner, name)
    setattr(owner, name, see)
    try:
        load()
    except Seen as seen:
        return seen.args
    finally:
        setattr(owner, name, original)
    raise RuntimeError(f"upstream's loader no longer calls {name}")


def _tokenizers(folder: Path) -> Path:
    import tiny

    return tiny.make_tokenizer_cache(folder / "tokenizers")


def _text_config(sizes: dict[str, int], act: str) -> Any:
    from transformers import CLIPTextConfig

    # As in the models' own files; the tokens that begin and end a text are the vocabulary's last two.
    return CLIPTextConfig(
        vocab_size=49408, projection_dim=sizes["hidden_size"], hidden_act=act, bos_token_id=49406, eos_token_id=49407, **sizes
    )


def _vae(scaling_factor: float) -> Any:
    from diffusers import AutoencoderKL

    channels = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    return AutoencoderKL(sample_size=512, scaling_factor=scaling_factor, **_VAE_BLOCKS, **channels)


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def make_sd15(folder: Path) -> dict[str, Path]:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    with _real_size("float16"):
        parts = {
            # The blocks and their widths are diffusers' defaults, which are SD 1.x's.
            "unet": UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
            "vae": _vae(0.18215),
            "text_encoder": CLIPTextModel(_text_config(_CLIP_L, "quick_gelu")),
        }
    nothing = dict.fromkeys(("tokenizer", "safety_checker", "feature_extractor"))
    pipeline = StableDiffusionPipeline(**parts, **nothing, scheduler=_scheduler(), requires_safety_checker=False)
    pipeline.save_pretrained(folder / "base")
    return {"pretrained_model_name_or_path": folder / "base", "tokenizer_cache_dir": _tokenizers(folder)}


def make_sdxl(folder: Path) -> dict[str, Path]:
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with _real_size("float16"):
        parts = {
            "unet": UNet2DConditionModel(
                sample_size=128,
                block_out_channels=(320, 640, 1280),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=[1, 2, 10],
                attention_head_dim=[5, 10, 20],
                cross_attention_dim=2048,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
            ),
            "vae": _vae(0.13025),
            "text_encoder": CLIPTextModel(_text_config(_CLIP_L, "quick_gelu")),
            "text_encoder_2": CLIPTextModelWithProjection(_text_config(_CLIP_G, "gelu")),
        }
    nothing = dict.fromkeys(("tokenizer", "tokenizer_2"))
    StableDiffusionXLPipeline(**parts, **nothing, scheduler=_scheduler()).save_pretrained(folder / "base")
    return {"pretrained_model_name_or_path": folder / "base", "tokenizer_cache_dir": _tokenizers(folder)}


def make_anima(folder: Path) -> dict[str, Path]:
    import torch
    from library import anima_models, anima_utils, qwen_image_autoencoder_kl
    from transformers import Qwen3Config, Qwen3ForCausalLM

    def load_dit() -> None:
        anima_utils.load_anima_model("cpu", "", "torch", False, "cpu", torch.bfloat16)

    _, dit = _arguments_to(anima_models, "Anima", load_dit)
    _, vae = _arguments_to(qwen_image_autoencoder_kl, "AutoencoderKLQwenImage", lambda: qwen_image_autoencoder_kl.load_vae(""))
    qwen3 = folder / "qwen3"
    _qwen_tokenizer(qwen3)
    with _real_size("bfloat16"):
        _save(anima_models.Anima(**dit), folder / "dit.safetensors", "net.", _NOT_IN_FILES)
        _save(qwen_image_autoencoder_kl.AutoencoderKLQwenImage(**vae), folder / "vae.safetensors")
        Qwen3ForCausalLM(Qwen3Config(**_QWEN3_06B)).save_pretrained(qwen3)
    return {
        "pretrained_model_name_or_path": folder / "dit.safetensors",
        "vae": folder / "vae.safetensors",
        "qwen3": qwen3,
    }


def _qwen_tokenizer(folder: Path) -> None:
    """One that knows bytes and no merges. Captions become more tokens than with Qwen's own, and are padded to 512 anyway."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import Qwen2TokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    letters = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters.train_from_iterator([], vocab_size=259, special_tokens=special)
    letters.save_model(str(folder))
    Qwen2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


def make_flux(folder: Path) -> dict[str, Path]:
    import torch
    from library import flux_models, flux_utils

    def built(kind: Any, load: Callable[..., object]) -> Any:
        (config,), more = _arguments_to(kind, "_from_config", lambda: load("", torch.bfloat16, "cpu"))
        return kind._from_config(config, **more)

    dev = flux_models.configs["dev"]
    makers = {
        "pretrained_model_name_or_path": lambda: flux_models.Flux(dev.params),
        "ae": lambda: flux_models.AutoEncoder(dev.ae_params),
        "clip_l": lambda: built(flux_utils.CLIPTextModel, flux_utils.load_clip_l),
        "t5xxl": lambda: built(flux_utils.T5EncoderModel, flux_utils.load_t5xxl),
    }
    paths = {}
    for key, make in makers.items():  # one after the other: together they are 34 GB
        with _real_size("bfloat16"):
            paths[key] = _save(make(), folder / f"{key}.safetensors")
    tokenizers = _tokenizers(folder)
    _t5_tokenizer(Path(flux_utils.__file__).parents[1] / "configs/t5_old", tokenizers / "google_t5-v1_1-xxl")
    return {**paths, "tokenizer_cache_dir": tokenizers}


def _t5_tokenizer(source: Path, folder: Path) -> None:
    """From the files that sd-scripts has for Anima."""
    from transformers import T5TokenizerFast

    files = {"vocab_file": str(source / "spiece.model"), "tokenizer_file": str(source / "tokenizer.json")}
    T5TokenizerFast(**files).save_pretrained(folder)


def make_tiny_sd15(folder: Path) -> dict[str, Path]:
    import tiny

    return {"pretrained_model_name_or_path": tiny.make_model(folder / "base"), "tokenizer_cache_dir": _tokenizers(folder)}


MAKERS = {"sd15": make_sd15, "sdxl": make_sdxl, "anima": make_anima, "flux": make_flux}
TINY_MAKERS = {"sd15": make_tiny_sd15}

if __name__ == "__main__":
    main()
