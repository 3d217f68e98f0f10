"""Composites written for another trainer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lycoris_composite import cli
from lycoris_composite.composites.pictures import composite_picture
from lycoris_composite.composites.plan import Composite
from lycoris_composite.config.settings import Settings
from lycoris_composite.look.preview import make_preview
from tests import tiny
from tests.helpers import kohya_settings


@pytest.fixture
def settings(tmp_path: Path, clip_tokenizers: Path) -> Settings:
    tiny.draw_characters(tmp_path / "data", images=3, repeats=2)
    return kohya_settings(
        tmp_path, train_data_dir=str(tmp_path / "data"), resolution="128,128", caption_extension=".txt", keep_tokens=1,
        tokenizer_cache_dir=str(clip_tokenizers), shuffle_caption=True, max_train_epochs=4,
    )  # fmt: skip


def test_it_writes_what_a_preview_shows(settings, tmp_path, capsys):
    assert cli.main(["export", str(settings.path), "--epochs", "2", "--out", str(tmp_path / "set")]) == 0
    folder = tmp_path / "set/1_composite"
    assert capsys.readouterr().out.endswith(f"{folder}: 36 composites\n")
    assert len(list(folder.iterdir())) == 72
    for epoch in (1, 2):
        for sample, picture in make_preview(settings, epoch, 100).datasets[0].samples:
            name = folder / f"e{epoch:04d}_{sample.composite.index:06d}"
            assert name.with_suffix(".txt").read_text() == f"{sample.caption}\n"
            assert np.array_equal(np.asarray(Image.open(name.with_suffix(".png"))), np.asarray(picture))


def test_what_a_killed_export_left_is_cleared_away(settings, tmp_path):
    (tmp_path / "set/.1_composite.x8k2~part").mkdir(parents=True)
    assert cli.main(["export", str(settings.path), "--out", str(tmp_path / "set")]) == 0
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["1_composite"]


def test_what_is_there_is_not_mixed_with(settings, tmp_path, capsys):
    (tmp_path / "set/1_composite").mkdir(parents=True)
    assert cli.main(["export", str(settings.path), "--out", str(tmp_path / "set")]) == 2
    assert "1_composite: is there already; remove it, or give another --out." in capsys.readouterr().err


def test_what_cannot_be_used_is_left_out_and_said(settings, tmp_path, capsys):
    (tmp_path / "data/2_rin/02.png").write_bytes(b"no picture")
    assert cli.main(["export", str(settings.path), "--out", str(tmp_path / "set")]) == 0
    assert "left out: " in capsys.readouterr().out
    assert len(list((tmp_path / "set/1_composite").glob("*.png"))) == 16


def test_an_image_that_goes_away_leaves_nothing_half_written(settings, tmp_path, capsys, monkeypatch):
    def gone(composite: Composite) -> Image.Image:
        Path(composite.panels[0].image.path).unlink(missing_ok=True)
        return composite_picture(composite)

    monkeypatch.setattr("lycoris_composite.look.export.composite_picture", gone)
    assert cli.main(["export", str(settings.path), "--out", str(tmp_path / "set")]) == 2
    assert "is gone; put it back" in capsys.readouterr().err
    assert list((tmp_path / "set").iterdir()) == []


def test_no_composite_comes_round_again(settings, tmp_path):
    """What is encoded ahead for this trainer is nothing to another: from the third epoch on its composites are new."""
    settings.path.write_text(f'{settings.path.read_text()}join = "pixel"\n')
    command = ["export", str(settings.path), "--set", "cache_latents=true", "--epochs", "3", "--out", str(tmp_path / "set")]
    assert cli.main(command) == 0
    captions = {
        epoch: sorted(path.read_text() for path in (tmp_path / "set/1_composite").glob(f"e{epoch:04d}_*.txt"))
        for epoch in (1, 2, 3)
    }
    assert len({tuple(texts) for texts in captions.values()}) == 3
