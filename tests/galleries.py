"""Folders as training leaves them, made in a moment: samples, effective configs, prompts and TensorBoard logs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import toml
from PIL import Image

from lycoris_composite.run.journal import Journal, StageRecord

BEGIN = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))  # when stage 1 of these folders starts, on this machine's clock


def clock(moment: float) -> str:
    """As upstream writes a time into names."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(moment))


def write_sample(
    output_dir: Path, stage: str, place: str, number: int, moment: float, picture: Image.Image | None = None, seed: str = "_1"
) -> Path:
    """One sample under upstream's name. `place` is `e000001` or `000100`. Its colour tells stages and prompts apart."""
    path = output_dir / "sample" / f"{stage}_{place}_{number:02d}_{clock(moment)}{seed}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture or Image.new("RGB", (64, 64), colour(stage, place, number))).save(path)
    return path


def colour(stage: str, place: str, number: int) -> tuple[int, int, int]:
    return (200 if stage.endswith("-stage1") else 50, int(place.strip("e")) % 25 * 10, number % 12 * 20)


def write_stage(
    output_dir: Path, stage: str, places: Sequence[str], prompts: Any = ("one", "two"), begin: float = BEGIN, **settings: Any
) -> None:
    """A stage's samples, a minute between epochs, with the config and the prompts (.json) that its name goes with."""
    output_dir.mkdir(parents=True, exist_ok=True)
    file = output_dir / f"{stage.removesuffix('-stage1')}-prompts.json"
    file.write_text(json.dumps([one if isinstance(one, Mapping) else {"prompt": one} for one in prompts]))
    tables = {"output_name": stage, "sample_prompts": str(file), **settings}
    (output_dir / f"{stage}.toml").write_text(toml.dumps(tables))
    for turn, place in enumerate(places, start=1):
        for number in range(len(prompts)):
            write_sample(output_dir, stage, place, number, begin + 60 * turn + number)


def write_journal(output_dir: Path, steps: Sequence[int], name: str = "cg3") -> None:
    """What the launcher notes of a run: a stage for each number of steps, 0 for one that is not finished."""
    journal = Journal(output_dir / f"{name}.run.json")
    for number, count in enumerate(steps, start=1):
        journal.begin(number, StageRecord({}, {}, run=f"{number}" * 16))
        if count:
            journal.finish(number, "digest", count, count // 10)


def write_log(logs: Path, losses: Mapping[int, float], run: str = "cg3-11111111", begin: float = BEGIN) -> Path:
    """A run's events as upstream logs them: a loss at every step, and one at every epoch's end, whose number stands
    where steps do. Another `begin` is another start of the trainer."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder = logs / run / "network_train"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"events.out.tfevents.{int(begin)}.host.1.0", "wb") as opened:
        records = RecordWriter(opened)
        records.write(Event(wall_time=begin + 1, file_version="brain.Event:2").SerializeToString())

        def write(moment: float, step: int, values: Mapping[str, float]) -> None:
            for tag, value in values.items():
                summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
                records.write(Event(wall_time=moment, step=step, summary=summary).SerializeToString())

        for step, loss in losses.items():
            moment = begin + 6 * step
            write(moment, step, {"loss/current": loss, "loss/average": loss / 2, "lr/unet": 1e-4})
            if step % 10 == 0:
                write(moment + 0.1, step // 10, {"loss/epoch_average": loss})
    return folder
