"""A copy of sd-scripts in which every architecture is narrow.

Upstream keeps the sizes of its models as numbers in its source, most of them inside functions. So the copy's text is
changed; a number that is not where it was is an error. In the copy HunyuanImage's encoders and VAE also are float32,
because a CPU cannot run them in the two other precisions that upstream fixes.
"""

from __future__ import annotations

from pathlib import Path

from examples.cg3_mini.narrow import narrow_copy

CLIP_WIDTH = 32  # of every CLIP, so that the two of SDXL and of SD3 make T5's width together
WIDTH = 64  # of the other text encoders, and of the transformers
VOCABULARY = 1024  # tokens of every tokenizer but CLIP's and byT5's (tests/architectures/vocabularies.py)
BYT5_WIDTH = 32
DIFFUSION_WIDTH = 32  # of SDXL's U-Net, whose attention has heads of 64 channels and whose norms have 32 groups

Edits = list[tuple[str, str]]
_CLIP = f"intermediate_size={2 * CLIP_WIDTH}, num_attention_heads=2, projection_dim={CLIP_WIDTH}"
_TRANSFORMER = f"intermediate_size={2 * WIDTH}, num_attention_heads=2, num_hidden_layers=2, vocab_size={VOCABULARY}"


def _before(line: str, addition: str) -> tuple[str, str]:
    return line, f"{addition}\n    {line}"


# What stands in each file, and what takes its place wherever it stands.
EDITS: dict[str, Edits] = {
    "library/sdxl_original_unet.py": [
        ("ADM_IN_CHANNELS: int = 2816", f"ADM_IN_CHANNELS: int = {CLIP_WIDTH + 6 * 256}"),
        ("CONTEXT_DIM: int = 2048", f"CONTEXT_DIM: int = {2 * CLIP_WIDTH}"),
        ("MODEL_CHANNELS: int = 320", f"MODEL_CHANNELS: int = {DIFFUSION_WIDTH}"),
        ("TIME_EMBED_DIM = 320 * 4", f"TIME_EMBED_DIM = {DIFFUSION_WIDTH} * 4"),
        ("cross_attention_dim=2048", "cross_attention_dim=CONTEXT_DIM"),
        ("num_transformer_layers=2,", "num_transformer_layers=1,"),
        ("num_transformer_layers=10,", "num_transformer_layers=1,"),
    ],
    "library/sdxl_model_util.py": [
        ("hidden_size=768", f"hidden_size={CLIP_WIDTH}"),
        ("hidden_size=1280", f"hidden_size={CLIP_WIDTH}"),
        ("intermediate_size=3072", f"intermediate_size={2 * CLIP_WIDTH}"),
        ("intermediate_size=5120", f"intermediate_size={2 * CLIP_WIDTH}"),
        ("num_hidden_layers=12", "num_hidden_layers=11"),  # the eleventh's output is taken
        ("num_hidden_layers=32", "num_hidden_layers=2"),
        ("num_attention_heads=12", "num_attention_heads=2"),
        ("num_attention_heads=20", "num_attention_heads=2"),
        ("projection_dim=768", f"projection_dim={CLIP_WIDTH}"),
        ("projection_dim=1280", f"projection_dim={CLIP_WIDTH}"),
    ],
    "library/model_util.py": [
        ("VAE_PARAMS_CH = 128", "VAE_PARAMS_CH = 32"),
        ("VAE_PARAMS_CH_MULT = [1, 2, 4, 4]", "VAE_PARAMS_CH_MULT = [1, 1, 1, 1]"),
        ("VAE_PARAMS_NUM_RES_BLOCKS = 2", "VAE_PARAMS_NUM_RES_BLOCKS = 1"),
    ],
    "library/flux_models.py": [
        ("vec_in_dim=768", f"vec_in_dim={CLIP_WIDTH}"),
        ("context_in_dim=4096", f"context_in_dim={WIDTH}"),
        ("hidden_size=3072", f"hidden_size={WIDTH}"),
        ("num_heads=24", "num_heads=2"),
        ("axes_dim=[16, 56, 56]", "axes_dim=[8, 12, 12]"),
        ("depth=19", "depth=1"),
        ("depth_single_blocks=38", "depth_single_blocks=1"),
        ("ch=128", "ch=32"),
        ("ch_mult=[1, 2, 4, 4],\n            num_res_blocks=2", "ch_mult=[1, 1, 1, 1],\n            num_res_blocks=1"),
    ],
    "library/chroma_models.py": [
        ("context_in_dim=4096", f"context_in_dim={WIDTH}"),
        ("hidden_size=3072", f"hidden_size={WIDTH}"),
        ("num_heads=24", "num_heads=2"),
        ("depth=19", "depth=1"),
        ("depth_single_blocks=38", "depth_single_blocks=1"),
        ("axes_dim=[16, 56, 56]", "axes_dim=[8, 12, 12]"),
        ("approximator_depth=5", "approximator_depth=1"),
        ("approximator_hidden_size=5120", f"approximator_hidden_size={WIDTH}"),
    ],
    "library/flux_utils.py": [
        _before(
            "config = CLIPConfig(**CLIPL_CONFIG)",
            f"CLIPL_CONFIG.update(hidden_size={CLIP_WIDTH}, num_hidden_layers=2, {_CLIP})",
        ),
        _before(
            "config = T5Config(**config)",
            f"config.update(d_ff={2 * WIDTH}, d_kv=32, d_model={WIDTH}, num_heads=2, num_layers=2, vocab_size={VOCABULARY})",
        ),
    ],
    "library/sd3_utils.py": [
        ("hidden_size=768", f"hidden_size={CLIP_WIDTH}"),
        ("hidden_size=1280", f"hidden_size={CLIP_WIDTH}"),
        ("intermediate_size=3072", f"intermediate_size={2 * CLIP_WIDTH}"),
        ("intermediate_size=5120", f"intermediate_size={2 * CLIP_WIDTH}"),
        ("num_hidden_layers=12", "num_hidden_layers=2"),
        ("num_hidden_layers=32", "num_hidden_layers=2"),
        ("num_attention_heads=12", "num_attention_heads=2"),
        ("num_attention_heads=20", "num_attention_heads=2"),
        ("projection_dim=768", f"projection_dim={CLIP_WIDTH}"),
        ("projection_dim=1280", f"projection_dim={CLIP_WIDTH}"),
    ],
    "library/sd3_models.py": [("ch=128,", "ch=32,"), ("ch_mult=(1, 2, 4, 4)", "ch_mult=(1, 1, 1, 1)")],
    "library/strategy_sd3.py": [("4096", f"{WIDTH}"), (", 768)", f", {CLIP_WIDTH})"), (", 1280)", f", {CLIP_WIDTH})")],
    "library/anima_utils.py": [
        ('"model_channels": 2048', f'"model_channels": {WIDTH}'),
        ('"crossattn_emb_channels": 1024', f'"crossattn_emb_channels": {WIDTH}'),
        ('"adaln_lora_dim": 256', '"adaln_lora_dim": 16'),
        ('"num_blocks": 28', '"num_blocks": 2'),
        ('"num_heads": 16', '"num_heads": 2'),
    ],
    "library/anima_models.py": [
        ("source_dim=1024", f"source_dim={WIDTH}"),
        ("target_dim=1024", f"target_dim={WIDTH}"),
        ("model_dim=1024", f"model_dim={WIDTH}"),
        ("num_layers=6,\n                self", "num_layers=1,\n                self"),
        ("nn.Embedding(32128, ", f"nn.Embedding({VOCABULARY}, "),
    ],
    "library/qwen_image_autoencoder_kl.py": [('"base_dim": 96', '"base_dim": 8')],
    "library/lumina_models.py": [
        ("dim=2304,\n            n_layers=26", f"dim={WIDTH},\n            n_layers=2"),
        ("n_heads=24,\n            n_kv_heads=8", "n_heads=2,\n            n_kv_heads=1"),
        ("axes_dims=[32, 32, 32]", "axes_dims=[8, 12, 12]"),
        ("cap_feat_dim=2304", f"cap_feat_dim={WIDTH}"),
    ],
    "library/lumina_util.py": [
        _before(
            "config = Gemma2Config(**GEMMA2_CONFIG)",
            f"GEMMA2_CONFIG.update(hidden_size={WIDTH}, head_dim=32, num_key_value_heads=1, {_TRANSFORMER})",
        ),
    ],
    "library/hunyuan_image_models.py": [
        ("self.rope_dim_list = [64, 64]", "self.rope_dim_list = [16, 16]"),
        ("self.hidden_size = 3584", f"self.hidden_size = {WIDTH}"),
        ("self.heads_num = 28", "self.heads_num = 2"),
        ("mm_double_blocks_depth = 20", "mm_double_blocks_depth = 1"),
        ("mm_single_blocks_depth = 40", "mm_single_blocks_depth = 1"),
        ("text_states_dim = 3584", f"text_states_dim = {WIDTH}"),
        ("in_dim=1472, out_dim=2048, hidden_dim=2048", f"in_dim={BYT5_WIDTH}, out_dim={WIDTH}, hidden_dim={WIDTH}"),
    ],
    "library/hunyuan_image_vae.py": [
        ("block_out_channels = (128, 256, 512, 512, 1024, 1024)", "block_out_channels = (32, 32, 32, 64, 64, 128)"),
        ("layers_per_block = 2", "layers_per_block = 1"),
    ],
    "library/hunyuan_image_text_encoder.py": [
        _before(
            "config = T5Config(**config)",
            f"config.update(d_ff={2 * BYT5_WIDTH}, d_kv=16, d_model={BYT5_WIDTH}, num_heads=2, num_layers=2)",
        ),
        ("byt5_max_length, 1472)", f"byt5_max_length, {BYT5_WIDTH})"),
        _before(
            "config = Qwen2_5_VLConfig(**config)",
            f"""\
sizes = dict(hidden_size={WIDTH}, num_key_value_heads=1, {_TRANSFORMER})
    for part in (config, config["text_config"]):
        part.update(sizes)
        part["rope_scaling"]["mrope_section"] = [4, 6, 6]
    config["text_config"]["layer_types"] = ["full_attention"] * 2
    config["vision_config"].update(
        depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size={WIDTH}, fullatt_block_indexes=[0]
    )""",
        ),
    ],
    "networks/oft_flux.py": [("[3072] * 3", f"[{WIDTH}] * 3"), ("[12288]", f"[{4 * WIDTH}]")],
    "networks/lora_hunyuan_image.py": [("[3584] * 3 + [14336]", f"[{WIDTH}] * 3 + [{4 * WIDTH}]")],
    "hunyuan_image_train_network.py": [
        ("else torch.bfloat16", "else torch.float32"),
        ("args.byt5, dtype=torch.float16", "args.byt5, dtype=torch.float32"),
        ("vae.to(dtype=torch.float16)", "vae.to(dtype=torch.float32)"),
    ],
}  # fmt: skip


def narrow_everything(sd_scripts: Path, folder: Path) -> Path:
    """A copy of the checkout in `folder`, with SD 1.x and every other architecture narrow. Returns `folder`."""
    narrow_copy(sd_scripts, folder)
    for name, edits in EDITS.items():
        path = folder / name
        text = path.read_text(encoding="utf-8")
        for old, new in edits:
            if old not in text:
                raise ValueError(f"{name} has no {old!r} any more; see what this version of sd-scripts has in its place.")
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    return folder
