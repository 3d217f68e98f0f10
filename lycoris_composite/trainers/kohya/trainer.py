"""The subclass of an upstream trainer that trains composites, and stages that can be interrupted."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lycoris_composite.composites.join import join_panels
from lycoris_composite.composites.layouts import Box
from lycoris_composite.composites.plan import Plan
from lycoris_composite.errors import Stopped
from lycoris_composite.randomness import epoch_order, noise_seed
from lycoris_composite.run.journal import RunLog
from lycoris_composite.run.states import Attempt, State, finish_state, place_of
from lycoris_composite.trainers.kohya.dataset import CompositeDataset, SwitchedDataset
from lycoris_composite.trainers.kohya.logs import log_as_one_run, log_composites
from lycoris_composite.trainers.networks import load_surely
from lycoris_composite.trainers.ranks import stop_signal
from lycoris_composite.trainers.saving import composite_metadata, save_whole


class RunHooks:
    """What the hooks of one upstream run share: its counters, its seed, and a stage's attempt.

    In stages, and wherever there are composites, every draw is a function of (seed, epoch, index). Elsewhere upstream
    draws as it always does.
    """

    def __init__(self, attempt: Attempt | None = None) -> None:
        self.attempt = attempt
        self.is_asked_to_stop = False
        self.max_steps = self.epochs = 0
        self._seed: int | None = None
        self._batches_an_epoch = 0
        self._next_batch = (1, 0)  # the epoch it is of, and its number there
        self._epoch_counter: Any = None
        self._step_counter: Any = None

    def take_counters(self, epoch: Any, step: Any) -> None:
        """Upstream's `multiprocessing.Value`s, which loader workers see too."""
        self._epoch_counter, self._step_counter = epoch, step

    def draw_purely(self, seed: int, trained: Sequence[Any], validated: Sequence[Any], accumulation: int) -> None:
        """From here on draws are pure."""
        self._seed = seed
        self._batches_an_epoch = sum(len(dataset) for dataset in trained)
        batches = math.ceil(self._batches_an_epoch / int(os.environ.get("WORLD_SIZE", "1")))  # of each process
        for dataset in [*trained, *validated]:
            if isinstance(dataset, SwitchedDataset):
                dataset.share_epoch(self._epoch_counter, math.ceil(batches / accumulation))

    def order(self, count: int) -> Sequence[int] | None:
        """The order of an epoch's batches; None for upstream's own."""
        if self._seed is None or count != self._batches_an_epoch:
            return None
        return epoch_order(count, self._seed, self._epoch)

    def seed_next_batch(self, rank: int) -> None:
        """To be called before each batch that is trained on."""
        if self._seed is None:
            return
        epoch = self._epoch
        number = self._next_batch[1] if self._next_batch[0] == epoch else 0
        torch.manual_seed(noise_seed(self._seed, epoch, number, rank))
        self._next_batch = (epoch, number + 1)

    def start_at(self, step: int, epochs: int, batches: int) -> None:
        """Training goes on after `step` steps: after so many epochs, and so many batches of the next."""
        self._step_counter.value = max(0, step - 1)
        self._next_batch = (epochs + 1, batches)

    def finish_state(self, part: Path) -> None:
        """Completes a state folder that accelerate has written. A state that somebody asked for is saved when the next
        step has begun, any other before the step is counted."""
        if self.attempt is not None:
            step = self.step + (0 if self.is_asked_to_stop else 1)
            finish_state(part, self.attempt, self._epoch, step, self.max_steps, on_stop=self.is_asked_to_stop)

    @property
    def state(self) -> State | None:
        """What this run goes on from."""
        return self.attempt.state if self.attempt else None

    @property
    def log(self) -> RunLog:
        """What the log holds before this run."""
        return (self.attempt and self.attempt.log) or RunLog("")

    @property
    def step(self) -> int:
        """How many steps were done before the one that is under way."""
        return self._step_counter.value

    @property
    def _epoch(self) -> int:
        return max(1, self._epoch_counter.value)


def composite_trainer(base: type, hooks: RunHooks) -> type:
    """A subclass of the trainer with hooks. Datasets learn the epoch, the metadata names the composites, draws are pure, and
    a stage goes on where it was interrupted. With `join = "latent"` uncached panels are encoded apart."""

    class CompositeTrainer(base):  # type: ignore[misc, valid-type]
        _composite_metadata: dict[str, str] = {}
        _plans: Sequence[Plan] = ()
        _panel_boxes: Sequence[Sequence[Box]] | None = None  # of the batch that is being encoded panel by panel

        def assert_extra_args(self, args: Any, train_dataset_group: Any, val_dataset_group: Any) -> None:
            super().assert_extra_args(args, train_dataset_group, val_dataset_group)
            trained = [d for d in train_dataset_group.datasets if isinstance(d, CompositeDataset)]
            if trained or hooks.attempt is not None:
                validated = getattr(val_dataset_group, "datasets", [])
                hooks.draw_purely(args.seed, train_dataset_group.datasets, validated, args.gradient_accumulation_steps)
            if trained:
                self._plans = [dataset.plan for dataset in trained]
                self._composite_metadata = composite_metadata(self._plans)

        def post_process_network(self, args: Any, accelerator: Any, network: Any, *rest: Any) -> None:
            super().post_process_network(args, accelerator, network, *rest)
            network.save_weights = save_whole(network.save_weights)
            is_continued = hooks.attempt is not None and hooks.attempt.is_continued
            load, say = network.load_weights, accelerator.print
            network.load_weights = load_surely(load, network, is_continued, say, args.dim_from_weights)
            if hooks.attempt is not None and hooks.attempt.log is not None:
                log_as_one_run(accelerator, args.log_prefix, hooks.attempt.log.name)

        def sample_images(self, accelerator: Any, args: Any, epoch: int | None, *rest: Any, **named: Any) -> None:
            """Not before the first step of a run that goes on: its weights are no start any more."""
            if epoch != 0 or hooks.state is None:
                super().sample_images(accelerator, args, epoch, *rest, **named)

        def step_logging(self, accelerator: Any, logs: dict, global_step: int, epoch: int) -> None:
            super().step_logging(accelerator, logs, global_step + hooks.log.steps, epoch + hooks.log.epochs)

        def epoch_logging(self, accelerator: Any, logs: dict, global_step: int, epoch: int) -> None:
            super().epoch_logging(accelerator, logs, global_step + hooks.log.steps, epoch + hooks.log.epochs)

        def val_logging(self, accelerator: Any, logs: dict, global_step: int, epoch: int, val_step: int) -> None:
            super().val_logging(accelerator, logs, global_step + hooks.log.steps, epoch + hooks.log.epochs, val_step)

        def update_metadata(self, metadata: dict, args: Any) -> None:
            super().update_metadata(metadata, args)
            metadata.update(self._composite_metadata)

        def begin_loop(
            self, args: Any, progress_bar: Any, batches: int, global_step: int, epoch_to_start: int, initial_step: int
        ) -> tuple[int, int, int]:
            """Called by the patched `train` (sd_scripts_patches/training_loop_start.py)."""
            steps = args.max_train_steps
            place = partial(place_of, batches=batches, accumulation=args.gradient_accumulation_steps, max_steps=steps)
            hooks.max_steps, hooks.epochs = steps, place(steps)[0]
            if hooks.attempt is not None:
                hooks.attempt.stop.waiting = True
            if hooks.state is not None:
                global_step = hooks.state.step
                epoch_to_start, initial_step = place(global_step)
                progress_bar.total, progress_bar.initial, progress_bar.n = steps, global_step, global_step
                progress_bar.refresh()
            hooks.start_at(global_step, epoch_to_start, initial_step)
            return global_step, epoch_to_start, initial_step

        def process_batch(self, batch: dict, *rest: Any, **named: Any) -> Any:
            given = inspect.signature(super().process_batch).bind(batch, *rest, **named).arguments
            accelerator, args = given["accelerator"], given["args"]
            if given.get("is_train", True):
                self._log_composites_once(accelerator)
                self._stop_if_asked(accelerator, args)
                hooks.seed_next_batch(accelerator.process_index)
            if "panel_boxes" not in batch:
                return super().process_batch(batch, *rest, **named)
            self._panel_boxes = batch["panel_boxes"]
            try:
                pictures = batch["images"].to(accelerator.device, dtype=given["vae_dtype"])
                batch["latents"] = self.encode_images_to_latents(args, given["vae"], pictures)
                return super().process_batch(batch, *rest, **named)
            finally:
                self._panel_boxes = None

        def encode_images_to_latents(self, args: Any, vae: Any, images: Any) -> Any:
            """Panel by panel where they are joined as latents: a batch's pictures, and what inpainting leaves of them."""
            encode = super().encode_images_to_latents
            if self._panel_boxes is None:
                return encode(args, vae, images)
            return encode_panels(partial(encode, args, vae), images, self._panel_boxes, args.vae_batch_size or len(images))

        def _log_composites_once(self, accelerator: Any) -> None:
            plans, self._plans = self._plans, ()
            if accelerator.trackers and hooks.state is None:
                log_composites(accelerator.trackers, plans, hooks.log.steps)

        def _stop_if_asked(self, accelerator: Any, args: Any) -> None:
            """Between two steps, with everything saved that the last one was due: at the start of the next."""
            accumulates = args.gradient_accumulation_steps > 1
            if hooks.attempt is None or (accumulates and accelerator.step % args.gradient_accumulation_steps != 1):
                return
            signal = stop_signal(hooks.attempt.stop, accelerator)
            if not signal:
                return
            hooks.is_asked_to_stop = True
            folder = hooks.attempt.on_stop_folder(hooks.step)
            if accelerator.is_main_process:
                accelerator.step -= accumulates  # it counts the batch that has just been fetched
                accelerator.save_state(str(folder))
            accelerator.wait_for_everyone()
            raise Stopped(signal, f"stopped after step {hooks.step} of {args.max_train_steps}; its state is in {folder}")

    return CompositeTrainer


def encode_panels(encode: Callable, pictures: Any, boxes: Sequence[Sequence[Box]], batch_size: int) -> Any:
    """(B, 3, H, W) pictures and the boxes of their panels -> (B, C, h, w) latents, encoded panel by panel. Panels of the
    same size share a VAE pass of at most `batch_size`."""
    panels = [(number, box) for number, row in enumerate(boxes) for box in row]
    latents: dict[tuple[int, Box], Any] = {}
    with torch.no_grad():
        for size in dict.fromkeys(box.size for _, box in panels):
            same_size = iter([(number, box) for number, box in panels if box.size == size])
            while batch := list(islice(same_size, batch_size)):
                cuts = [pictures[n, :, top : top + height, left : left + width] for n, (left, top, width, height) in batch]
                latents.update(zip(batch, encode(torch.stack(cuts)), strict=True))
        joined = [join_panels([latents[number, box] for box in row], row) for number, row in enumerate(boxes)]
        return torch.nan_to_num(torch.stack(joined), 0)  # upstream replaces NaN of uncached latents likewise
