"""The TOML file and `--set` to checked settings. Only `[composite]` is ours; all else is kohya's and stays as it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import toml

from lycoris_composite.architectures import DEFAULT_TRAINER, architecture_of
from lycoris_composite.composites.captions import check_template
from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.config.options import KohyaSettings, check_value, parse_resolution
from lycoris_composite.data.buckets import Size
from lycoris_composite.errors import UserError, nearest

DEFAULT_NAME = "last"  # upstream's, where output_name is missing
_CHOICES = {"join": ("latent", "pixel"), "aspect": ("natural", "equal")}
_OPTIONS = {option.name: type(option.default) for option in fields(CompositeOptions)}


@dataclass(frozen=True)
class Settings:
    """A config file. `kohya` is flattened as upstream flattens it: its tables only group, a later key wins. An empty text
    is an unset key: GUIs export all of their fields."""

    path: Path
    kohya: KohyaSettings
    composite: CompositeOptions
    trainer: str = DEFAULT_TRAINER
    stage2: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kohya", KohyaSettings(self.kohya))

    @property
    def output_name(self) -> str:
        """That of stage 2's file and of all that a run writes beside it."""
        return str(self.kohya.output_name or DEFAULT_NAME)

    @property
    def single_size(self) -> Size | None:
        """The size that the config gives for single images, if it does."""
        return parse_resolution(self.kohya.resolution) if self.kohya.resolution else None


def load_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Reads a config and applies `key=value` overrides. Raises UserError naming file, table and key."""
    tables = read_toml(path)
    for override in overrides:
        _override(tables, override)
    composite = tables.pop("composite", None)
    if composite is None and "datasets" in tables:
        raise UserError(f"{path}: is a dataset_config; name it so in a kohya config with a [composite] table.")
    if composite is None:
        raise UserError(f"{path}: no [composite] table; add one (it may be empty), or run upstream's train_network.py.")
    if not isinstance(composite, dict):
        raise UserError(f"{path}, composite: must be a table; write [composite] and its keys below it.")
    where = f"{path}, [composite]"
    trainer, stage2 = composite.pop("trainer", DEFAULT_TRAINER), composite.pop("stage2", {})
    elsewhere = "; write kohya's settings in another table, or in [composite.stage2]."
    check_option_keys(composite, where, [*_OPTIONS, "trainer", "stage2"], elsewhere)
    if not isinstance(trainer, str) or not trainer.removesuffix(".py").isidentifier():
        raise UserError(f'{where} trainer: {trainer!r} is no script name; write e.g. "sdxl_train_network".')
    trainer = trainer.removesuffix(".py")
    options = composite_options(composite, where, trainer)
    if not isinstance(stage2, dict):
        raise UserError(f"{where} stage2: must be a table; write [composite.stage2] and its keys below it.")
    return Settings(path, without_empty(flatten(tables)), options, trainer, stage2)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's tables. Raises UserError for one that is missing, not UTF-8 or not TOML."""
    try:
        return toml.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin a file with a byte order mark
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; correct the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct the path.") from error
    except (toml.TomlDecodeError, IndexError, ValueError, TypeError) as error:  # toml leaks its parser's own errors
        raise UserError(f"{path}: not TOML ({_parser_words(error)}); correct that line.") from None


def _parser_words(error: Exception) -> str:
    """toml's own words, but for the ones that show a value: it may be a secret that somebody forgot to quote."""
    words = str(error).splitlines()[0]
    value = re.match(r"(invalid literal|could not convert).*(\(line \d+ [^)]*\))$", words)
    return f"a value that is neither in quotes nor a number {value[2]}" if value else words


def flatten(tables: Mapping[str, Any]) -> dict[str, Any]:
    """One namespace from all tables, as upstream's `read_config_from_file` makes it."""
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def without_empty(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value != ""}


def composite_options(table: Mapping[str, Any], where: str, trainer: str = DEFAULT_TRAINER) -> CompositeOptions:
    """The options of a `[composite]` or `[datasets.composite]` table; other keys are passed over. A trainer has a caption
    template of its own. `where` begins the sentence of a UserError."""
    values = {}
    for key, kind in _OPTIONS.items():
        if key in table:
            check_value(table[key], kind, f"{where} {key}")
            values[key] = kind(table[key])
    options = CompositeOptions(**{"caption": architecture_of(trainer).caption, **values})
    for key, (first, second) in _CHOICES.items():
        if (value := getattr(options, key)) not in (first, second):
            raise UserError(f'{where} {key}: "{value}" is neither {first} nor {second}{nearest(value, (first, second))}')
    try:
        check_template(options.caption)
    except ValueError as error:
        raise UserError(f"{where} caption: {error}.") from error
    if not 0 < options.composites_per_image <= 10_000:
        raise UserError(f"{where} composites_per_image: {options.composites_per_image} is out of range; give 0.01 to 10000.")
    if not 1 <= options.cycle_epochs <= 10_000:
        raise UserError(f"{where} cycle_epochs: {options.cycle_epochs} is out of range; give 1 to 10000.")
    return options


def check_option_keys(
    table: Mapping[str, Any], where: str, known: Collection[str] = tuple(_OPTIONS), otherwise: str = "; remove it."
) -> None:
    """Raises UserError for a key that is not among the known ones. `otherwise` is the advice where no known key is close."""
    for key in table:
        if key not in known:
            raise UserError(f"{where} {key}: unknown key{nearest(key, known) or otherwise}")


def _override(tables: dict[str, Any], override: str) -> None:
    """Applies one `key=value`. A plain key goes where the file has it, a dotted one where the dots say. No value
    takes the key away, which leaves upstream's default."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f'--set {override}: not of the form key=value; write e.g. "--set xformers=false".')
    *path, last = key.strip().split(".")
    table = tables
    if not path:
        holders = [value for value in tables.values() if isinstance(value, dict) and last in value]
        table = holders[-1] if holders else tables
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {key.strip()}: {name} is no table; leave out what stands before the last dot.")
    table[last] = parse_value(text)
    if not text.strip():
        del table[last]


def parse_value(text: str) -> Any:
    """A TOML value, or the text itself where it is none: `false`, `1e-4`, `["a=b"]`, `192,192`."""
    try:
        return toml.loads(f"value = {text}")["value"]
    except (toml.TomlDecodeError, IndexError, ValueError, TypeError):
        return text
