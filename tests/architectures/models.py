"""Tiny random models of every architecture, 0.1 to 25 MB each: `python -m tests.architectures.models SD_SCRIPTS FOLDER NAME...`

SD_SCRIPTS is a narrow copy (narrow.py), whose own classes say which tensors a file holds: so this is a process of its own,
with the copy on the path. FOLDER gets a folder for each architecture, CLIP's and T5's tokenizers in `tokenizers`, and what
upstream looks for in the hub's cache in `hf`, to be HF_HOME. Every file is made from its name. Each `make_` function writes
an architecture's files and returns the settings that name them; `files.json` keeps those.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import nn

from tests import tiny
from tests.architectures import vocabularies
from tests.architectures.narrow import CLIP_WIDTH, VOCABULARY, WIDTH

Files = dict[str, str]  # kohya's option -> a path


def make_sdxl(folder: Path) -> Files:
    """SDXL in a single file, with both text encoders and the VAE."""
    from diffusers import AutoencoderKL
    from library import model_util, sdxl_model_util, sdxl_original_unet
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = sdxl_original_unet.SdxlUNet2DConditionModel()
    vae = AutoencoderKL(**model_util.create_vae_diffusers_config())
    encoder = CLIPTextModel(_clip_config(11, "quick_gelu"))  # upstream takes the eleventh layer's output
    encoder2 = CLIPTextModelWithProjection(_clip_config(2, "gelu"))
    for model in (unet, vae, encoder, encoder2):
        model.load_state_dict(_random_tensors(model, f"sdxl {type(model).__name__}"))
    path = str(folder / "sdxl.safetensors")
    sdxl_model_util.save_stable_diffusion_checkpoint(path, encoder, encoder2, unet, 0, 0, None, vae, torch.tensor(4.6), None)
    return {"pretrained_model_name_or_path": path, "tokenizer_cache_dir": _clip_and_t5_tokenizers(folder)}


def make_flux(folder: Path) -> Files:
    """FLUX.1 [dev], in the format of its makers."""
    from library import flux_models, flux_utils

    config = flux_models.configs["dev"]
    return {
        "pretrained_model_name_or_path": _save(folder / "flux.safetensors", flux_models.Flux(config.params)),
        "ae": _save(folder / "ae.safetensors", flux_models.AutoEncoder(config.ae_params)),
        "clip_l": _save(folder / "clip_l.safetensors", _model_that_loads(flux_utils.load_clip_l)),
        "t5xxl": _save(folder / "t5xxl.safetensors", _model_that_loads(flux_utils.load_t5xxl)),
        "tokenizer_cache_dir": _clip_and_t5_tokenizers(folder),
    }


def make_chroma(folder: Path) -> Files:
    """Chroma, with Flux's VAE and T5. It has no CLIP, whose tokenizer upstream loads all the same."""
    from library import chroma_models, flux_models, flux_utils

    return {
        "pretrained_model_name_or_path": _save(
            folder / "chroma.safetensors", chroma_models.Chroma(chroma_models.chroma_params)
        ),
        "ae": _save(folder / "ae.safetensors", flux_models.AutoEncoder(flux_models.configs["dev"].ae_params)),
        "t5xxl": _save(folder / "t5xxl.safetensors", _model_that_loads(flux_utils.load_t5xxl)),
        "tokenizer_cache_dir": _clip_and_t5_tokenizers(folder),
    }


def make_sd3(folder: Path) -> Files:
    """SD 3.5 medium, its VAE in the same file."""
    from library import sd3_models, sd3_utils

    side = 24  # of the largest picture, in patches of 16 pixels
    params = sd3_models.SD3Params(
        patch_size=2,
        depth=2,  # upstream makes it 64 channels wide for each
        num_patches=side * side,
        pos_embed_max_size=side,
        adm_in_channels=2 * CLIP_WIDTH,
        qk_norm="rms",
        x_block_self_attn_layers=[0],
        context_embedder_in_features=WIDTH,
        context_embedder_out_features=128,
        model_type="5-medium",
    )
    mmdit = sd3_models.create_sd3_mmdit(params)
    mmdit.initialize_weights()  # whose place embeddings are whatever was in memory until then
    whole = nn.ModuleDict({"model": nn.ModuleDict({"diffusion_model": mmdit}), "first_stage_model": sd3_models.SDVAE()})
    return {
        "pretrained_model_name_or_path": _save(folder / "sd3.safetensors", whole),
        "clip_l": _save(folder / "clip_l.safetensors", _model_that_loads(sd3_utils.load_clip_l)),
        "clip_g": _save(folder / "clip_g.safetensors", _model_that_loads(sd3_utils.load_clip_g)),
        "t5xxl": _save(folder / "t5xxl.safetensors", _model_that_loads(sd3_utils.load_t5xxl)),
        "tokenizer_cache_dir": _clip_and_t5_tokenizers(folder),
    }


def make_anima(folder: Path) -> Files:
    """Anima, with Qwen3 in a folder: for a single file upstream needs one that it does not have in its repository."""
    from library import anima_utils, qwen_image_autoencoder_kl
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    qwen3 = Qwen3ForCausalLM(config)
    qwen3.load_state_dict(_random_tensors(qwen3, "qwen3"))
    qwen3.save_pretrained(vocabularies.write_qwen(folder / "qwen3"))

    def load(path: str, dtype: torch.dtype, device: str) -> Any:
        return anima_utils.load_anima_model(device, path, "torch", False, device, dtype)

    transformer = nn.ModuleDict({"net": _model_that_loads(load)})
    vae = _model_that_loads(lambda path, dtype, device: qwen_image_autoencoder_kl.load_vae(path, device=device))
    return {
        "pretrained_model_name_or_path": _save(folder / "anima.safetensors", transformer),
        "qwen3": str(folder / "qwen3"),
        "vae": _save(folder / "vae.safetensors", vae),
        "t5_tokenizer_path": str(vocabularies.write_t5(folder / "t5")),
    }


def make_lumina(folder: Path) -> Files:
    """Lumina Image 2.0, with Flux's VAE. The hub's cache gets Gemma's tokenizer."""
    from library import flux_models, lumina_models, lumina_util

    vocabularies.write_gemma(vocabularies.hub_folder(_hub_of(folder), "google/gemma-2-2b"))
    transformer = lumina_models.NextDiT_2B_GQA_patch2_Adaln_Refiner()
    return {
        "pretrained_model_name_or_path": _save(folder / "lumina.safetensors", transformer),
        "gemma2": _save(folder / "gemma2.safetensors", _model_that_loads(lumina_util.load_gemma2)),
        "ae": _save(folder / "ae.safetensors", flux_models.AutoEncoder(flux_models.configs["dev"].ae_params)),
    }


def make_hunyuan_image(folder: Path) -> Files:
    """HunyuanImage-2.1. The hub's cache gets both tokenizers."""
    from library import hunyuan_image_models, hunyuan_image_text_encoder, hunyuan_image_vae

    hub = _hub_of(folder)
    special_tokens = ["<|im_start|>", "<|im_end|>"]
    vocabularies.write_qwen(vocabularies.hub_folder(hub, "Qwen/Qwen2.5-VL-7B-Instruct"), special_tokens)
    vocabularies.write_byt5(vocabularies.hub_folder(hub, "google/byt5-small"))
    qwen = _model_that_loads(hunyuan_image_text_encoder.load_qwen2_5_vl)
    byt5 = nn.ModuleDict({"encoder": _model_that_loads(hunyuan_image_text_encoder.load_byt5)})
    transformer = hunyuan_image_models.HYImageDiffusionTransformer()
    in_file = {"model.language_model.": "model.", "model.visual.": "visual."}
    return {
        "pretrained_model_name_or_path": _save(folder / "hunyuan_image.safetensors", transformer),
        "text_encoder": _save(folder / "qwen2_5_vl.safetensors", qwen, in_file),
        "byt5": _save(folder / "byt5.safetensors", byt5, {"encoder.embed_tokens.": "shared."}),
        "vae": _save(folder / "vae.safetensors", hunyuan_image_vae.HunyuanVAE2D()),
    }


MAKERS: dict[str, Callable[[Path], Files]] = {
    "sdxl": make_sdxl,
    "flux": make_flux,
    "chroma": make_chroma,
    "sd3": make_sd3,
    "anima": make_anima,
    "lumina": make_lumina,
    "hunyuan_image": make_hunyuan_image,
}


def main() -> None:
    sd_scripts, folder, *names = sys.argv[1:]
    os.environ.setdefault("HF_HOME", str(hf_home(Path(folder))))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path.append(sd_scripts)
    for name in names:
        own = Path(folder) / name
        own.mkdir(parents=True, exist_ok=True)
        (own / "files.json").write_text(json.dumps(MAKERS[name](own), indent=2))


def hf_home(folder: Path) -> Path:
    """What HF_HOME has to be for the models in `folder`, while they are made and when they are trained."""
    return folder / "hf"


def _hub_of(folder: Path) -> Path:
    return hf_home(folder.parent) / "hub"


def _clip_and_t5_tokenizers(folder: Path) -> str:
    """The folder for --tokenizer_cache_dir, which the architectures share."""
    cache = folder.parent / "tokenizers"
    if not cache.is_dir():
        vocabularies.write_t5(tiny.make_tokenizer_cache(cache) / "google_t5-v1_1-xxl")
    return str(cache)


def _clip_config(layers: int, activation: str) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=CLIP_WIDTH,
        intermediate_size=2 * CLIP_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        projection_dim=CLIP_WIDTH,
        hidden_act=activation,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )


class _Caught(BaseException):
    def __init__(self, model: nn.Module) -> None:
        self.model = model


def _model_that_loads(load: Callable[[str, torch.dtype, str], Any]) -> nn.Module:
    """The model that a loader of upstream's builds and then fills from its file. It is caught before, and is empty."""

    def catch(self: nn.Module, *_: Any, **__: Any) -> None:
        raise _Caught(self)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(nn.Module, "load_state_dict", catch):
        path = f"{folder}/any.safetensors"
        save_file({"shared.weight": torch.zeros(1)}, path)  # byT5's loader renames this one
        try:
            load(path, torch.float32, "cpu")
        except _Caught as caught:
            return caught.model
    raise AssertionError(f"{load} fills no model")


def _save(path: Path, model: nn.Module, renamed: Mapping[str, str] | None = None) -> str:
    """Writes a model's tensors, drawn from the path's last names. `renamed` are beginnings of names that the file has in
    another form. Returns the path."""
    tensors = {}
    for name, value in _random_tensors(model, f"{path.parent.name} {path.stem}").items():
        old = next((start for start in renamed or {} if name.startswith(start)), "")
        tensors[(renamed or {}).get(old, "") + name.removeprefix(old)] = value
    save_file(tensors, path)
    return str(path)


def _random_tensors(model: nn.Module, seed: str) -> dict[str, torch.Tensor]:
    """float32 weights that keep what goes through them about as large as it was; buffers as they are."""
    rng = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    weights = dict(model.named_parameters(remove_duplicate=False))
    drawn: dict[int, torch.Tensor] = {}  # by the weight's id: a weight may have several names
    for name, weight in weights.items():
        if id(weight) not in drawn:
            noise = torch.randn(weight.shape, generator=rng)
            is_vector = weight.numel() == max(weight.shape, default=1)
            scale = 0.02 if is_vector else weight[0].numel() ** -0.5
            drawn[id(weight)] = noise * scale + (is_vector and not name.endswith("bias"))
    buffers = {name: value for name, value in model.state_dict().items() if name not in weights}
    return {name: drawn[id(weight)].clone() for name, weight in weights.items()} | buffers


if __name__ == "__main__":
    main()
