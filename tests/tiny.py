"""Small things to train on: a model, a tokenizer folder, drawn characters, images that are odd or broken.

Everything is made from a seed, in a second or three, without a network. Making a model leaves torch's generators as
they were. Pillow, torch, diffusers and transformers are imported by the function that needs them, so that a test
which only draws does not wait for torch. Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from examples.cg3_mini.narrow import WIDTHS

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]

# --- the model ---------------------------------------------------------------------------------------------------

TEXT_WIDTH = 64  # of the text encoder, and so of the UNet's cross attention
VAE_CHANNELS = (8, 8, 16, 16)  # four blocks: 8 pixels become one latent cell


def make_model(folder: Path, seed: int = 0) -> Path:
    """A random model of SD 1.x's architecture in diffusers' format, written into `folder`; returns `folder`.

    33 MB of UNet, 13 MB of text encoder (all 49408 tokens, 77 positions), 0.3 MB of VAE (factor 8, 4 channels).
    Upstream builds its own UNet for it only in a narrow copy (examples/cg3_mini/narrow.py).
    """
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    # torch.manual_seed would seed the CUDA generators too, which this fork does not keep.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        pipeline = StableDiffusionPipeline(
            vae=_tiny_vae(),
            text_encoder=_tiny_text_encoder(),
            tokenizer=None,
            unet=_tiny_unet(),
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _tiny_unet():
    from diffusers import UNet2DConditionModel

    # The blocks are diffusers' defaults, which are SD 1.x's.
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=WIDTHS,
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
    )


def _tiny_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=VAE_CHANNELS,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )


def _tiny_text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            max_position_embeddings=77,
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_WIDTH * 4,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=TEXT_WIDTH,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )


# --- the tokenizer -----------------------------------------------------------------------------------------------

PAD_TOKENS = {  # upstream's name of the folder -> the pad token of the tokenizer in it
    "openai_clip-vit-large-patch14": "<|endoftext|>",
    "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k": "!",
}


def make_tokenizer_cache(folder: Path) -> Path:
    """A folder for upstream's --tokenizer_cache_dir holding CLIP's tokenizer for SD 1.x and SDXL's second one.

    Built from the merges in open-clip-torch; FileNotFoundError where that is not installed. Returns `folder`.
    """
    from transformers import CLIPTokenizer

    merges = _clip_merges()
    for name, pad_token in PAD_TOKENS.items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        _write_vocabulary(target, merges)
        tokenizer = CLIPTokenizer(
            str(target / "vocab.json"), str(target / "merges.txt"), pad_token=pad_token, model_max_length=77
        )
        tokenizer.save_pretrained(target)
    return folder


def _clip_merges() -> list[str]:
    """CLIP's 48894 merges, best first, each two symbols and a space between."""
    spec = importlib.util.find_spec("open_clip")  # finds the file without open_clip's slow import
    if spec is None or spec.origin is None:
        raise FileNotFoundError("CLIP's merges: open_clip is not installed; pip install open-clip-torch.")
    text = gzip.decompress((Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode("utf-8")
    return text.split("\n")[1 : 49152 - 256 - 2 + 1]  # CLIP's own slice: a header line first, unused merges last


def _write_vocabulary(folder: Path, merges: Sequence[str]) -> None:
    """vocab.json and merges.txt: 256 bytes, the same ending a word, the merges, two specials."""
    import json

    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


# --- the characters ----------------------------------------------------------------------------------------------

COLOURS = {
    "red": (200, 50, 50),
    "orange": (235, 140, 40),
    "green": (60, 160, 80),
    "blue": (60, 100, 200),
    "purple": (140, 80, 180),
    "pink": (240, 140, 170),
    "black": (45, 45, 50),
    "white": (235, 235, 230),
}
SKIN = (250, 220, 195)
MIXED_SIZES: tuple[Size, ...] = ((96, 96), (64, 128), (128, 64), (80, 112))


class Look(NamedTuple):
    """What makes a character: colours' names, the same in each of its images."""

    hair: str
    outfit: str
    hat: bool


def draw_characters(
    folder: Path,
    *,
    images: int = 4,
    size: Size | Sequence[Size] | None = (96, 96),
    seed: int = 0,
    repeats: int = 1,
    names: Sequence[str] = ("uzuki", "rin", "mio"),
) -> Path:
    """kohya's layout: `<repeats>_<name>/NN.png` from 01 on with a caption `NN.txt`, trigger word first.

    `size` is one size, or several that the images of each character take in turn; None is `MIXED_SIZES`. Looks do
    not depend on the order of `names`, and up to eight characters have hair of different colours. Returns `folder`.
    """
    sizes = _size_list(size)
    for name, look in _looks(names, seed).items():
        subset = folder / f"{repeats}_{name}"
        subset.mkdir(parents=True, exist_ok=True)
        for number in range(1, images + 1):
            rng = random.Random(f"{seed} {name} {number}")
            picture, tags = _draw_figure(look, sizes[(number - 1) % len(sizes)], rng)
            picture.save(subset / f"{number:02}.png")
            caption = ", ".join([name, *tags])
            (subset / f"{number:02}.txt").write_text(caption, encoding="utf-8")
    return folder


def _size_list(size: Size | Sequence[Size] | None) -> Sequence[Size]:
    if size is None:
        return MIXED_SIZES
    return [size] if isinstance(size[0], int) else size


def _looks(names: Sequence[str], seed: int) -> dict[str, Look]:
    hairs = list(COLOURS)
    random.Random(f"{seed} hair").shuffle(hairs)
    looks = {}
    for index, name in enumerate(sorted(names)):
        rng = random.Random(f"{seed} {name}")
        hair = hairs[index % len(hairs)]
        outfit = rng.choice([colour for colour in COLOURS if colour != hair])
        looks[name] = Look(hair, outfit, rng.random() < 0.5)
    return {name: looks[name] for name in names}


def _draw_figure(look: Look, size: Size, rng: random.Random) -> tuple[Image, list[str]]:
    """One standing figure on a plain background, and its tags without the trigger word."""
    from PIL import Image, ImageDraw

    background = rng.choice([colour for colour in COLOURS if colour not in (look.hair, look.outfit)])
    smiling = rng.random() < 0.5
    arms_up = rng.random() < 0.5
    width, height = size
    unit = min(width, height) / 12
    x = width / 2 + rng.uniform(-1, 1) * unit
    y = height / 2 - 2 * unit  # the middle of the head

    picture = Image.new("RGB", size, tuple((channel + 255) // 2 for channel in COLOURS[background]))
    draw = ImageDraw.Draw(picture)

    def ellipse(dx: float, dy: float, rx: float, ry: float, colour: tuple[int, int, int]) -> None:
        box = (x + (dx - rx) * unit, y + (dy - ry) * unit, x + (dx + rx) * unit, y + (dy + ry) * unit)
        draw.ellipse(box, fill=colour)

    ellipse(0, 0.4, 2.6, 3.0, COLOURS[look.hair])
    for side in (-1, 1):
        ellipse(side * 2.4, 2.0 if arms_up else 4.6, 0.6, 1.6, SKIN)
        ellipse(side * 0.8, 7.2, 0.5, 1.2, SKIN)
    body = [(-1.2, 2.0), (1.2, 2.0), (2.4, 6.6), (-2.4, 6.6)]
    draw.polygon([(x + dx * unit, y + dy * unit) for dx, dy in body], fill=COLOURS[look.outfit])
    ellipse(0, 0.4, 2.0, 2.1, SKIN)
    ellipse(0, -1.4, 2.2, 1.1, COLOURS[look.hair])
    for side in (-1, 1):
        ellipse(side * 0.8, 0.5, 0.3, 0.5, COLOURS["black"])
    ellipse(0, 1.6, 0.7, 0.4 if smiling else 0.1, COLOURS["red"])
    if look.hat:
        ellipse(0, -2.4, 2.6, 0.7, COLOURS[look.outfit])

    tags = ["1girl", f"{look.hair} hair", f"{look.outfit} dress", f"{background} background"]
    tags += ["smile"] * smiling + ["arms up"] * arms_up + ["hat"] * look.hat
    return picture, tags


# --- odd and broken images ---------------------------------------------------------------------------------------


def reference_picture() -> Image:
    """What `odd_images` show: 64 wide, 48 high, RGB; quarters red and green above, blue and white below."""
    from PIL import Image

    picture = Image.new("RGB", (64, 48), (255, 255, 255))
    picture.paste((220, 30, 30), (0, 0, 32, 24))
    picture.paste((30, 200, 30), (32, 0, 64, 24))
    picture.paste((30, 30, 220), (0, 24, 32, 48))
    return picture


def odd_images(folder: Path) -> dict[str, Path]:
    """Files that are unusual and right, by oddity. Each, read right, is `reference_picture` as 64 x 48 RGB.

    `grey` and `grey16` are its luma (0 to 255, and the same spread over 0 to 65535). In `palette` and `rgba` the white
    quarter is fully transparent, and white underneath. `cmyk` and `exif_rotated` are JPGs: a few levels off, more at
    the quarters' borders. `exif_rotated` is stored 48 x 64 with orientation 6.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    picture = reference_picture()
    grey = picture.convert("L")

    paths = {oddity: folder / f"{oddity}.png" for oddity in ("palette", "grey", "grey16", "rgba")}
    paths |= {oddity: folder / f"{oddity}.jpg" for oddity in ("cmyk", "exif_rotated")}
    palette = picture.quantize(colors=4)
    palette.save(paths["palette"], transparency=palette.getpixel((63, 47)))
    grey.save(paths["grey"])
    sixteen_bits = b"".join((level * 257).to_bytes(2, "little") for level in grey.tobytes())
    Image.frombytes("I;16", grey.size, sixteen_bits).save(paths["grey16"])
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (32, 24, 64, 48))
    rgba = picture.copy()
    rgba.putalpha(alpha)
    rgba.save(paths["rgba"])
    picture.convert("CMYK").save(paths["cmyk"], quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise by a quarter to show"
    stored = picture.transpose(Image.Transpose.ROTATE_90)  # Pillow turns counterclockwise
    stored.save(paths["exif_rotated"], quality=95, exif=exif)
    return paths


def broken_images(folder: Path) -> dict[str, Path]:
    """Files that must be refused, by fault. The truncated ones have whole headers: 64 x 64, and half of the pixels."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    noise = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3))
    contents = {"empty.png": b"", "text.png": b"This is no image.\n"}
    for suffix, kind in (("png", "PNG"), ("jpg", "JPEG")):
        whole = io.BytesIO()
        noise.save(whole, kind)
        contents[f"truncated_{suffix}.{suffix}"] = whole.getvalue()[: whole.tell() // 2]
    paths = {}
    for name, content in sorted(contents.items()):
        path = folder / name
        path.write_bytes(content)
        paths[path.stem] = path
    return paths
