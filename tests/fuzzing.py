"""Configs, captions and images as nobody should write them, and what must hold of each: one sentence, exit code 2, no
file but the lock. The configs name a base model that is not there, so that none of them can begin to train."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from lycoris_composite import launcher
from lycoris_composite.config.effective import toml_text
from tests import tiny

LONGEST = 60  # seconds for one input; a hang is a failure
BASE: dict[str, Any] = {
    "pretrained_model_name_or_path": "/no/such/model.safetensors",
    "output_name": "cg3",
    "network_module": "lycoris.kohya",
    "network_args": ["algo=loha"],
    "network_dim": 4,
    "learning_rate": 1e-4,
    "resolution": "128,128",
    "enable_bucket": True,
    "min_bucket_reso": 64,
    "caption_extension": ".txt",
    "keep_tokens": 1,
    "cache_latents": True,
    "train_batch_size": 2,
    "max_train_steps": 3,
    "seed": 42,
}
KEYS = (*BASE, "train_data_dir", "output_dir", "dataset_config", "dataset_repeats", "max_bucket_reso", "bucket_reso_steps",
        "bucket_no_upscale", "flip_aug", "shuffle_caption", "caption_separator", "keep_tokens_separator", "caption_prefix",
        "caption_suffix", "caption_dropout_rate", "token_warmup_step", "enable_wildcard", "secondary_separator", "sample_prompts",
        "save_every_n_steps", "save_model_as", "mixed_precision", "optimizer_type", "lr_scheduler", "text_encoder_lr", "vae",
        "wandb_api_key", "max_token_length", "resume", "logging_dir", "no_such_key", "", "clip skip", "凛")  # fmt: skip
COMPOSITE_KEYS = ("caption", "composites_per_image", "join", "aspect", "trainer", "stage2", "jion", "")

texts = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            ",",
            "{left}",
            "{left}/{right}",
            "{",
            "{{}}",
            "{0}",
            "{left.x}",
            "../..",
            "a/b",
            "\n",
            "\0",
            "~",
            "nan",
            "1e999",
        ]
    ),
    st.text(max_size=30),
)
values = st.recursive(
    st.one_of(texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.integers(-2, 5), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)
captions = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([b"", b"\n", b"rin", b"mio, hat", b"rin, " + b"tag, " * 100_000, b"\xef\xbb\xbfrin, hat", b"rin\0, hat", b"{a|b}, c", b"rin, ((x:1e99))"]),
)  # fmt: skip
names = st.one_of(
    st.sampled_from(["x.png", "a b.png", "'\".png", "new\nline.png", "-.png", "é凛.png", "%s.png", "{left}.png", ".png", "x.PNG", "x.tar.png", "\udcff.png"]),
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).map(lambda text: f"{text}.png"),
)  # fmt: skip


# What taggers, GUIs and forum posts write.
TAGS = ("1girl", "1boy", "2girls", "solo", "hat", "smile", "rin", "mio", "Rin", "rin_(series)", "rin \\(series\\)", "masterpiece", "best quality",
        "{rin|mio}", "looking at viewer", "", " ", "COMPOSITE", "|||", "a" * 300, "凛", "__name__", "(hat:1.2)", "1girl/1boy", "\n", ", ,")  # fmt: skip
EXPORTED: dict[str, tuple[Any, ...]] = {
    "vae": ("", "None", 0), "logging_dir": ("", "logs"), "resume": ("",), "network_weights": ("", "no.safetensors"), "sample_prompts":
    ("", "rin, hat", "p.txt", "p.text", ["rin", "mio"], [], ["rin", 1]), "max_token_length": (75, "75", 150, 225, 100), "dynamo_backend":
    ("no", "NO", "inductor", "x"), "save_precision": ("fp32", "float", ""), "sample_sampler": ("DPM++ 2M", "euler_a", ""), "lr_scheduler_type":
    ("", "CosineAnnealingLR"), "log_with": ("", "tensorboard"), "max_train_epochs": ("", 0, 1), "caption_extension": ("", "txt"), "seed":
    ("", "1234", 0), "mixed_precision": ("", "no", "fp16", "None"), "huber_schedule": ("snr", ""), "loss_type": ("l2", "", "l3"), "keep_tokens":
    ("", "1", 0), "text_encoder_lr": ([], [1e-4], "", 0, [1e-4, 1e-4]), "lr_warmup_steps": (0, 0.1, 100, "", -1), "clip_skip": ("", 1, 2), "optimizer_args":
    ("", []), "network_args": ("", []), "sample_every_n_epochs": (0, 1, ""), "save_every_n_steps": (0, ""), "v2": ("", "false"), "resolution":
    ("512,512", "512x512", "", [128, 128]), "min_snr_gamma": (0, 5, ""), "noise_offset": ("", 0, 0.1), "adaptive_noise_scale": (0, 0.1, ""),
    "bucket_reso_steps": (32, 1, 64, ""), "min_bucket_reso": (32, 64, ""), "bucket_no_upscale": (True, ""), "train_inpainting": (True,),
    "skip_image_resolution": ("512,512", "", 1), "network_dim": ("", 4, 0, 320), "network_alpha": ("", 0, "1", 128), "torch_compile": (True, ""),
    "network_dropout": (0, 0.5, ""), "dim_from_weights": (True,), "scale_weight_norms": (0, 1.0), "deepspeed": (True,), "unit": ("",),
}  # fmt: skip
NETWORK_ARGS = ("algo=loha", "algo=dylora", "algo=locon", "algo=full", "algo=ia3", "algo=lokr", "algo=LoHa", "algo=", "algo", "preset=full",
                "preset=attn_mlp", "preset=attn-mlp", "preset=/", "conv_dim=0", "conv_dim=abc", "conv_dim=-1", "conv_dim=99999999", "conv_alpha=x", "block_size=3",
                "factor=-1", "factor=x", "dropout=2", "dropout=-1", "train_norm=maybe", "use_tucker=True", "=", "=1", "a:b", "agol=loha", "conv dim=1", "rs_lora=1",
                "loraplus_lr_ratio=16", "loraplus_lr_ratio=x", "dora_wd=true", "unit=3", "down_lr_weight=1,2", "constraint=nan")  # fmt: skip
NETWORK_MODULES = (
    "lycoris.kohya",
    "networks.lora",
    "networks.loha",
    "networks.dylora",
    "networks.oft",
    "lycoris",
    "lycoris.kohay",
    "os",
    "",
)
OPTIMIZERS = ("AdamW", "adamw", "AdamW8bit", "Adafactor", "Prodigy", "DAdaptAdam", "Lion", "SGDNesterov", "RAdamScheduleFree", "SGD", "LBFGS",
              "torch.optim.Adam", "pytorch_optimizer.CAME", "no.such", "Adam W", ".", "NAdam", "SparseAdam", "Lamb")  # fmt: skip
OPTIMIZER_ARGS = ("weight_decay=0.1", "weight_decay:0.1", "betas=0.9,0.99", "betas=(0.9,)", "decouple=True", "eps=abc", "lr=1", "=", "foo=1", "momentum=0.9",
                  "relative_step=False", "scale_parameter=False", "warmup_init=True", "d_coef=2", "fused=True", "weight_decay=__import__('os')")  # fmt: skip
SCHEDULERS = ("constant", "cosine", "linear", "cosine_with_restarts", "polynomial", "constant_with_warmup", "piecewise_constant", "adafactor:1e-4",
              "adafactor", "warmup_stable_decay", "inverse_sqrt", "cosine_with_min_lr", "Cosine", "rex")  # fmt: skip
SPOILS = ["caption", "image", "cut", "flip", "name", "folder", "link", "aspect", "jpg", "webp", "bmp", "gif", "tiff", "chunk"]
DATASET_KEYS = ("resolution", "batch_size", "enable_bucket", "min_bucket_reso", "subsets", "image_dir", "num_repeats", "keep_tokens",
                "class_tokens", "caption_extension", "is_reg", "flip_aug", "caption_separator", "composite", "datasets", "nothing")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A config and what is done to the data."""

    settings: dict[str, Any] = field(default_factory=dict)
    composite: Any = field(default_factory=dict)
    without: str = ""
    text: bytes | None = None  # instead of the config's own
    spoil: tuple[str, str, bytes, int] | None = None  # what, a name, bytes, a number
    dataset: tuple[str, dict[str, Any]] | None = None  # which table of a dataset_config, and what is set in it
    flags: tuple[str, ...] = ()
    tags: tuple[tuple[str, ...], ...] = ()  # captions in turn, of all folders
    mark: bool = False  # whether the config begins with a byte order mark


def exported(keys: tuple[str, ...] = tuple(EXPORTED)) -> st.SearchStrategy[dict[str, Any]]:
    """Some of a GUI's fields, filled in as GUIs do."""
    fields = [st.tuples(st.just(key), st.sampled_from(EXPORTED[key])) for key in keys]
    return st.lists(st.one_of(fields), min_size=1, max_size=6).map(dict)


networks = st.fixed_dictionaries(
    {"network_args": st.lists(st.sampled_from(NETWORK_ARGS), max_size=4)},
    optional={
        "network_module": st.sampled_from(NETWORK_MODULES),
        "network_dim": st.sampled_from((1, 4, 8, 64, 100_000, 10**9)),
        "network_alpha": st.sampled_from((0, 0.5, 1, 64)),
        "network_train_unet_only": st.booleans(),
        "network_train_text_encoder_only": st.booleans(),
        "dim_from_weights": st.booleans(),
    },
)
optimizers = st.fixed_dictionaries(
    {"optimizer_type": st.sampled_from(OPTIMIZERS), "optimizer_args": st.lists(st.sampled_from(OPTIMIZER_ARGS), max_size=3)},
    optional={
        "lr_scheduler": st.sampled_from(SCHEDULERS),
        "lr_scheduler_args": st.lists(st.sampled_from(OPTIMIZER_ARGS), max_size=2),
        "lr_warmup_steps": st.sampled_from((0, 0.1, 10, 10**6)),
        "learning_rate": st.sampled_from((0.0, 1e-4, 1.0, -1.0)),
        "unet_lr": st.sampled_from((0.0, 1e-4, 1.0)),
        "text_encoder_lr": st.sampled_from((0.0, 1e-4, [], [1e-4])),
        "use_8bit_adam": st.booleans(),
        "fused_backward_pass": st.booleans(),
    },
)


def cases() -> st.SearchStrategy[Case]:
    spoils = st.tuples(
        st.sampled_from(SPOILS),
        names,
        captions,
        st.integers(0, 10_000),
    )
    kinds = [
        st.builds(Case, settings=st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=3)),
        st.builds(Case, composite=st.one_of(values, st.dictionaries(st.sampled_from(COMPOSITE_KEYS), values, max_size=3))),
        st.builds(Case, composite=st.builds(lambda table: {"stage2": table}, st.dictionaries(st.sampled_from(KEYS), values, max_size=3))),
        st.builds(Case, dataset=st.tuples(st.sampled_from(["general", "dataset", "subset", "top"]),
                                          st.dictionaries(st.sampled_from(DATASET_KEYS), values, min_size=1, max_size=2))),
        st.builds(Case, without=st.sampled_from(tuple(BASE))),
        st.builds(Case, text=st.one_of(st.binary(max_size=200), texts.map(lambda text: text.encode("utf-8", "replace")))),
        st.builds(Case, spoil=spoils, flags=st.sampled_from([(), ("--skip_bad",)])),
        st.builds(Case, settings=exported(), mark=st.booleans()),
        st.builds(Case, composite=st.one_of(exported(), networks, optimizers).map(lambda table: {"stage2": table})),
        st.builds(Case, settings=networks),
        st.builds(Case, settings=optimizers),
        st.builds(Case, tags=st.lists(st.lists(st.sampled_from(TAGS), max_size=6).map(tuple), min_size=1, max_size=6).map(tuple),
                  settings=st.dictionaries(st.sampled_from(("shuffle_caption", "enable_wildcard")), st.booleans())),
        st.builds(Case, flags=st.builds(lambda key, text: ("--set", f"{key}={text}"), st.sampled_from(KEYS), texts.filter(lambda t: "\0" not in t))),
    ]  # fmt: skip
    return st.one_of(kinds)


def run(case: Case, trainer: str = "builtin", flags: tuple[str, ...] = ()) -> None:
    """Raises AssertionError where the launcher does anything but refuse the case in one sentence."""
    with tempfile.TemporaryDirectory() as made, deadline():
        folder = Path(made)
        tiny.draw_characters(folder / "data", images=2)
        for number, caption in enumerate(sorted((folder / "data").rglob("*.txt")) if case.tags else ()):
            caption.write_text(", ".join(case.tags[number % len(case.tags)]), encoding="utf-8")
        if case.spoil:
            spoil(folder / "data", *case.spoil)
        config = write(case, folder, trainer)
        said, wrong = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
            try:
                code: Any = launcher.main(["--config", str(config), "--cpu", *flags, *case.flags])
            except SystemExit as exit:  # argparse's
                code = exit.code
        lines = wrong.getvalue().strip().splitlines()
        assert code == 2, f"exit code {code}: {wrong.getvalue()[-500:]}"
        assert lines, "nothing was said"
        assert lines[-1].startswith(("error: ", "train_composite.py: error: ", "train_network.py: error: ")), lines[-1]
        assert "Traceback" not in wrong.getvalue()
        left = [path for path in (folder / "out").rglob("*") if path.is_file()] if (folder / "out").exists() else []
        assert not left, f"left behind: {left}"


def write(case: Case, folder: Path, trainer: str) -> Path:
    path = folder / "cg3.toml"
    if case.text is not None:
        path.write_bytes(case.text)
        return path
    settings = {**BASE, "train_data_dir": str(folder / "data"), "output_dir": str(folder / "out"), **case.settings}
    settings.pop(case.without, None)
    if case.dataset:
        settings["dataset_config"] = str(write_dataset(folder, *case.dataset))
    composite = {"trainer": trainer, **case.composite} if isinstance(case.composite, dict) else case.composite
    tables = {"settings": settings, "composite": composite}
    try:
        text = toml_text(tables)
    except Exception:  # the writer has its own limits; what it cannot write, a config cannot hold
        text = f"settings = {json.dumps(settings, default=str)}"
    path.write_bytes(b"\xef\xbb\xbf" * case.mark + text.encode("utf-8", "surrogatepass"))
    return path


def write_dataset(folder: Path, which: str, changes: dict[str, Any]) -> Path:
    subsets = [{"image_dir": str(path), "num_repeats": 1} for path in sorted((folder / "data").iterdir())]
    dataset: dict[str, Any] = {"resolution": 128, "batch_size": 1, "subsets": subsets}
    top: dict[str, Any] = {"general": {"keep_tokens": 1, "caption_extension": ".txt"}, "datasets": [dataset]}
    {"general": top["general"], "dataset": dataset, "subset": subsets[0], "top": top}[which].update(changes)
    path = folder / "data.toml"
    try:
        text = toml_text(top)
    except Exception:
        text = "datasets = 1"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def spoil(data: Path, what: str, name: str, content: bytes, number: int) -> None:
    from PIL import Image

    victim = data / "1_rin"
    image = victim / "01.png"
    good = image.read_bytes()
    with contextlib.suppress(OSError, ValueError):  # a name that this file system does not take
        if what == "caption":
            (victim / "01.txt").write_bytes(content)
        elif what == "image":
            image.write_bytes(content)
        elif what == "cut":
            image.write_bytes(good[: number % len(good)])
        elif what == "flip":
            place = number % len(good)
            image.write_bytes(good[:place] + bytes([good[place] ^ (1 + number % 255)]) + good[place + 1 :])
        elif what == "name":
            shutil.copy(image, victim / name)
            shutil.copy(victim / "01.txt", (victim / name).with_suffix(".txt"))
        elif what == "folder":
            (victim / name).mkdir()
        elif what == "link":
            (victim / name).symlink_to(name if number % 2 else "nowhere.png")
        elif what == "aspect":
            Image.new("RGB", (1 + number, 1 + number % 7)).save(image)
        elif what == "chunk":  # a text chunk after the header that says more than it holds
            image.write_bytes(good[:33] + (number * 1000).to_bytes(4, "big") + b"zTXt" + content + good[33:])
        else:
            spoil_format(victim, what, number)


def spoil_format(folder: Path, extension: str, number: int) -> None:
    """A picture of another format, with EXIF, in which one byte is another; where upstream would not list its
    extension, it is called a PNG."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 1 + number % 9
    path = folder / f"other.{extension}"
    Image.effect_mandelbrot((48, 40), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(path, exif=exif)
    content = bytearray(path.read_bytes())
    content[number * 37 % len(content)] ^= 1 + number % 255
    path.unlink()
    name = path.with_suffix(".png") if extension in ("gif", "tiff") else path
    name.write_bytes(content)
    shutil.copy(folder / "01.txt", folder / "other.txt")


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise AssertionError(f"a hang: more than {LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
