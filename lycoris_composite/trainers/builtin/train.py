"""The embedded trainer: one stage of SD 1.x with LyCORIS, for machines where sd-scripts cannot be had.

It takes a stage's settings as sd-scripts would and does the same with them, in the same order of random draws, so that
both see the same batches and losses. What it leaves out it refuses by name: it is for trying things, and sd-scripts
for work. Models, schedulers and samplers are diffusers' and transformers', the network is LyCORIS's.
"""

from __future__ import annotations

import gc
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from tqdm import tqdm

from lycoris_composite.config.datasets import datasets_of, plan_of
from lycoris_composite.config.options import KEYS, check_kind
from lycoris_composite.config.prompts import prompt_values
from lycoris_composite.config.settings import parse_value
from lycoris_composite.config.stages import Stage
from lycoris_composite.data.characters import read_subset
from lycoris_composite.errors import Stopped, UserError, nearest, raise_first, refusals
from lycoris_composite.randomness import noise_seed
from lycoris_composite.run.files import whole
from lycoris_composite.run.states import Attempt, finish_state, place_of
from lycoris_composite.trainers.builtin.batches import Batches, Composites, EpochOrder, Singles, encoded
from lycoris_composite.trainers.builtin.model import LATENT_SCALE, NOISE, Text, load_model
from lycoris_composite.trainers.machine import check_clip
from lycoris_composite.trainers.networks import create_network, load_surely, network_arg_errors, network_args, network_errors
from lycoris_composite.trainers.ranks import stop_signal
from lycoris_composite.trainers.saving import composite_metadata, save_whole, whole_weights
from lycoris_composite.trainers.trainer import Trainer
from sd_scripts_patches import lycoris_timestep_embedding
from sd_scripts_patches.tools import why_misfit

_ONLY = {
    "network_module": "lycoris.kohya",
    "save_model_as": "safetensors",
    "cache_latents": True,
    "gradient_accumulation_steps": 1,
}
_SAMPLERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "k_euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "k_euler_a": "EulerAncestralDiscreteScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
}
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}  # float32 for any other precision
_CHOICES = {
    "optimizer_type": ("", "adamw", "adamw8bit"),
    "lr_scheduler": ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"),
    "mixed_precision": ("no", "fp16", "bf16"),
    "save_precision": ("", "float", "fp16", "bf16"),
    "sample_sampler": tuple(_SAMPLERS),
}
_NETWORK_STATE = "model.safetensors"  # accelerate's name for it
_KNOWN = {name for name, key in KEYS.items() if key.embedded}
_IN_METADATA = (
    *("output_name", "learning_rate", "unet_lr", "text_encoder_lr", "lr_scheduler", "network_module", "network_dim"),
    *("network_alpha", "seed", "clip_skip", "min_snr_gamma", "max_token_length", "resolution", "train_batch_size"),
    "mixed_precision",
)


class Builtin(Trainer):
    """The embedded trainer behind the calls of every trainer."""

    def known_options(self) -> set[str]:
        return _KNOWN

    def given_flags(self, flags: Sequence[str]) -> dict[str, Any]:
        """`--key value` pairs; a flag without a value is true."""
        given: dict[str, Any] = {}
        key = None
        for word in flags:
            if word.startswith("--"):
                key, _, value = word[2:].partition("=")
                given[key] = parse_value(value) if value else True
            elif key is None:
                raise UserError(f"{word}: belongs to no flag; write --key {word}.")
            else:
                given[key], key = parse_value(word), None
        raise_first(self.option_errors(given, "flag"))
        return given

    def option_errors(self, options: Mapping[str, Any], where: str) -> Iterator[UserError]:
        """One for each option that is not built in, or not with this value."""
        for key, value in options.items():
            if key in _ONLY and value != _ONLY[key]:
                yield UserError(f"{where} {key}: the built-in trainer only has {_ONLY[key]!r}; set that, or use sd-scripts.")
            elif key in KEYS and KEYS[key].embedded == "off" and value:
                yield UserError(f"{where} {key}: not in the built-in trainer; turn it off, or use sd-scripts.")
            elif key not in _KNOWN:
                hint = nearest(key, _KNOWN) or "; remove it, or use sd-scripts."
                yield UserError(f"{where} {key}: not in the built-in trainer{hint}")

    def stage_errors(self, stage: Stage, where: str) -> Iterator[UserError]:
        given = [(key, value) for key, value in stage.settings.items() if value is not None]
        wrong = list(refusals(partial(check_kind, key, value, where) for key, value in given))
        yield from wrong
        yield from refusals([check_clip])
        yield from network_arg_errors(stage.settings, where)
        required = {key: getattr(stage.settings, key) for key in _ONLY}
        yield from self.option_errors({**required, **stage.settings}, where)
        if not wrong:  # what follows takes the values for what they should be
            yield from _choice_errors(stage, where)

    def rehearsal_errors(self, stages: Sequence[Stage], where: str) -> Iterator[UserError]:
        yield from network_errors(stages, where)

    def fits(self, network_module: str | None) -> Iterator[tuple[str, str | None]]:
        yield "lycoris_timestep_embedding", why_misfit("lycoris_timestep_embedding")

    def run_stage(self, stage: Stage, attempt: Attempt, allow_pickle: bool = False) -> tuple[int, int]:
        """Trains a stage; how many steps and epochs that were. Pickled files are never loaded, so there is nothing to
        allow. Raises Stopped where somebody stopped it."""
        try:
            return _Run(stage, attempt).train()
        finally:
            gc.collect()  # the network and the layers that it hooked hold each other, and with them the base model


def _choice_errors(stage: Stage, where: str) -> Iterator[UserError]:
    if stage.composite is not None and stage.composite.join != "latent":
        yield UserError(f'{where}, [composite] join: the built-in trainer only has "latent"; set that, or use sd-scripts.')
    for key, choices in _CHOICES.items():
        value = getattr(stage.settings, key)
        if (value or "").lower() not in choices:
            known = ", ".join(filter(None, choices))
            yield UserError(f"{where} {key}: the built-in trainer has {known}; choose one, or use sd-scripts for {value}.")
    weights = stage.settings.network_weights
    if weights and not weights.endswith(".safetensors"):
        yield UserError(f"{where} network_weights: the built-in trainer loads .safetensors; convert {weights} first.")
    prompts = str(stage.settings.sample_prompts or "")
    if prompts and not prompts.endswith(".json"):
        yield UserError(f"{where} sample_prompts: the built-in trainer reads .json; write one, or leave it to the characters.")


class _Run:
    """One stage from its settings to its file."""

    def __init__(self, stage: Stage, attempt: Attempt) -> None:
        self.stage, self.attempt = stage, attempt
        self.options = stage.settings
        self.accelerator = Accelerator(mixed_precision=self.options.mixed_precision)
        self.dtype = _DTYPES.get(self.options.mixed_precision, torch.float32)
        self._losses: list[float] = []
        self._step = attempt.state.step if attempt.state else 0
        set_seed(self.options.seed)

    def train(self) -> tuple[int, int]:
        self._load()
        loader = self._loader()
        self.network = self._network()
        optimizer = self._optimizer()
        self.steps = steps = self._steps(len(loader))
        scheduler = self._scheduler(optimizer, steps)
        self.optimizer, prepared, self.scheduler = self.accelerator.prepare(optimizer, loader, scheduler)
        if self.attempt.state:
            self._load_state(self.attempt.state.folder)
        progress = tqdm(total=steps, initial=self._step, desc="steps", disable=not self.accelerator.is_main_process)
        self.attempt.stop.waiting = True
        if self.options.sample_at_first and not self._step:
            self._sample(0, 0)
        epochs = math.ceil(steps / len(prepared))
        done, begun = place_of(self._step, len(prepared), 1, steps)
        for epoch in range(done + 1, epochs + 1):
            loader.dataset.epoch.fill_(epoch)
            batches = self.accelerator.skip_first_batches(prepared, begun) if begun else prepared
            for number, batch in enumerate(islice(batches, steps - self._step), begun):
                self._stop_if_asked(epoch)
                torch.manual_seed(noise_seed(self.options.seed, epoch, number, self.accelerator.process_index))
                self._train_on(batch, progress)
                if self._is_due("save_every_n_steps", self._step):
                    self._save_on_the_way(f"step{self._step:08d}", epoch)
            begun = 0
            if self._is_due("save_every_n_epochs", epoch) and epoch < epochs:
                self._save_on_the_way(f"{epoch:06d}", epoch)
            if self._is_due("sample_every_n_epochs", epoch):
                self._sample(epoch, self._step)
        progress.close()
        if self.options.save_state or self.options.save_state_on_train_end:
            self._save_state(self.stage.output.with_name(f"{self.stage.name}-state"), epochs)
        self._save(self.stage.output, epochs)
        self.accelerator.wait_for_everyone()
        return steps, epochs

    def _train_on(self, batch: Mapping[str, Any], progress: tqdm) -> None:
        loss = self.loss(batch)
        self.accelerator.backward(loss)
        self._share_gradients()
        if self.options.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.network.get_trainable_params(), self.options.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._step += 1
        self._losses.append(float(loss.detach()))
        progress.update()
        progress.set_postfix(avr_loss=sum(self._losses) / len(self._losses))
        if self._is_due("sample_every_n_steps", self._step):
            self._sample(None, self._step)

    def _stop_if_asked(self, epoch: int) -> None:
        signal = stop_signal(self.attempt.stop, self.accelerator)
        if signal:
            folder = self.attempt.on_stop_folder(self._step)
            self._save_state(folder, epoch, on_stop=True)
            self.accelerator.wait_for_everyone()
            raise Stopped(signal, f"stopped after step {self._step} of {self.steps}; its state is in {folder}")

    def _is_due(self, key: str, number: int) -> bool:
        every = getattr(self.options, key)
        return bool(every) and number % every == 0

    def loss(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Mean squared error of the predicted noise; noise and then timesteps are drawn, as upstream does."""
        device = self.accelerator.device
        latents = batch["latents"].to(device) * LATENT_SCALE
        with self.accelerator.autocast():
            states = self.text.encode(self.text_encoder, batch["input_ids"].to(device))
        noise = torch.randn_like(latents)
        times = torch.randint(0, self.noise_scheduler.config.num_train_timesteps, (len(latents),)).to(device)
        noisy = self.noise_scheduler.add_noise(latents, noise, times).requires_grad_(True)
        with self.accelerator.autocast():
            predicted = self.unet(noisy, times, states).sample
        errors = (predicted.float() - noise).square().mean((1, 2, 3))
        return (errors * self._loss_weights(times)).mean()

    def _loss_weights(self, times: torch.Tensor) -> torch.Tensor:
        """One for each timestep, as `apply_snr_weight` and `add_v_prediction_like_loss` of upstream multiply by them."""
        signal = self.noise_scheduler.alphas_cumprod.to(times.device)[times]
        ratio, weights = signal / (1 - signal), torch.ones_like(signal)
        if self.options.min_snr_gamma:
            weights = weights * ratio.clamp(max=self.options.min_snr_gamma) / ratio
        if self.options.v_pred_like_loss:
            limited = ratio.clamp(max=1000)
            weights = weights * (1 + self.options.v_pred_like_loss * (limited + 1) / limited)
        return weights

    def _load(self) -> None:
        options, device = self.options, self.accelerator.device
        parts = load_model(Path(options.pretrained_model_name_or_path), options.tokenizer_cache_dir)
        self.pipeline = parts.to(device, self.dtype)
        self.unet, self.text_encoder, self.vae = models = parts.unet, parts.text_encoder, parts.vae
        for model in models:
            model.requires_grad_(False).eval()
        self.vae.to(torch.float32)
        self.text = Text(parts.tokenizer, options.max_token_length, options.clip_skip)
        self.noise_scheduler = DDPMScheduler(**NOISE)

    def _loader(self) -> DataLoader:
        options, stage = self.options, self.stage
        self.plans, sources = [], []
        for dataset in datasets_of(stage):
            if dataset.regularization:
                raise UserError(f"{options.dataset_config}, is_reg: not in the built-in trainer; use sd-scripts.")
            if stage.composite is None:
                subsets = [read_subset(subset, self.attempt.skipped) for subset in dataset.subsets]
                sources.append(Singles(subsets, dataset.canvas, dataset.batch_size, options.seed))
            else:
                self.plans.append(plan_of(dataset, stage.composite, options.seed, self.attempt.skipped))
                sources.append(Composites(self.plans[-1], self.text.budget()))
        panels = sorted(set().union(*(source.panels() for source in sources)))
        with torch.no_grad():
            latents = encoded(panels, self.vae, self.accelerator.device)
        workers = min(options.max_data_loader_n_workers, os.cpu_count() or 1)
        persistent = bool(options.persistent_data_loader_workers and workers)
        batches = Batches(sources, latents, self.text.ids)
        order, alone = EpochOrder(batches, options.seed), itemgetter(0)  # the loader's one sample is a batch already
        return DataLoader(batches, 1, sampler=order, collate_fn=alone, num_workers=workers, persistent_workers=persistent)

    def _network(self) -> Any:
        with ExitStack() as undo:
            undo.callback(lycoris_timestep_embedding.apply())
            network = create_network(self.options, self.vae, self.text_encoder, self.unet)
        if weights := self.options.network_weights:
            load_surely(network.load_weights, network, self.stage.weights_from is not None, print)(weights)
        return network.to(self.accelerator.device)

    def _optimizer(self) -> torch.optim.Optimizer:
        options = self.options
        groups = self.network.prepare_optimizer_params(options.text_encoder_lr, options.unet_lr, options.learning_rate)
        params = groups[0] if isinstance(groups, tuple) else groups  # LyCORIS 4 gives descriptions of the groups too
        if options.optimizer_type.lower() == "adamw8bit":
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit(params, lr=options.learning_rate)
        return torch.optim.AdamW(params, lr=options.learning_rate)

    def _scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> Any:
        total, warmup = steps * self.accelerator.num_processes, self.options.lr_warmup_steps
        warmup = int(warmup * total) if isinstance(warmup, float) else warmup
        return get_scheduler(self.options.lr_scheduler, optimizer, num_warmup_steps=warmup, num_training_steps=total)

    def _steps(self, batches: int) -> int:
        if self.options.max_train_epochs is None:
            return self.options.max_train_steps
        return self.options.max_train_epochs * math.ceil(batches / self.accelerator.num_processes)

    def _share_gradients(self) -> None:
        """The network is called through the modules that it hooked, which DistributedDataParallel would not see."""
        if self.accelerator.num_processes > 1:
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")

    def _save_on_the_way(self, name: str, epoch: int) -> None:
        """A checkpoint, and a state where the config wants one, under the names that upstream gives them."""
        self._save(self.stage.output.with_stem(f"{self.stage.name}-{name}"), epoch)
        if self.options.save_state:
            self._save_state(self.stage.output.with_name(f"{self.stage.name}-{name}-state"), epoch)

    def _save_state(self, folder: Path, epoch: int, on_stop: bool = False) -> None:
        if not self.accelerator.is_main_process:
            return
        with whole_weights(folder) as part:
            self.accelerator.save_state(str(part))
            save_file({key: value.contiguous() for key, value in self.network.state_dict().items()}, part / _NETWORK_STATE)
            finish_state(part, self.attempt, epoch, self._step, self.steps, on_stop)

    def _load_state(self, folder: Path) -> None:
        self.accelerator.load_state(str(folder))
        self.network.load_state_dict(load_file(folder / _NETWORK_STATE))

    def _save(self, path: Path, epoch: int) -> None:
        if not self.accelerator.is_main_process:
            return
        options = self.options
        metadata = {f"ss_{key}": str(options[key]) for key in _IN_METADATA if options.get(key) is not None}
        metadata |= {"ss_base_model_version": "sd_v1", "ss_composite_trainer": "builtin"}
        metadata |= {"ss_steps": str(self._step), "ss_epoch": str(epoch), "ss_network_args": json.dumps(network_args(options))}
        metadata |= composite_metadata(self.plans) if self.plans else {}
        save_whole(self.network.save_weights)(path, _DTYPES.get(options.save_precision, torch.float32), metadata)

    def _sample(self, epoch: int | None, step: int) -> None:
        """Pictures of the sample prompts, under the names that upstream gives them. Training's random numbers go on as
        if there had been none."""
        if not self.accelerator.is_main_process or not self.options.sample_prompts:
            return
        lines = json.loads(Path(self.options.sample_prompts).read_text(encoding="utf-8"))
        folder = self.stage.output_dir / "sample"
        suffix = f"{step:06d}" if epoch is None else f"e{epoch:06d}"
        with torch.random.fork_rng(), torch.no_grad():
            for number, prompt in enumerate(map(prompt_values, lines)):
                when = time.strftime("%Y%m%d%H%M%S")
                picture = self.draw(prompt)
                with whole(folder / f"{self.stage.name}_{suffix}_{number:02d}_{when}_{prompt.get('seed', 0)}.png") as part:
                    picture.save(part)

    def draw(self, prompt: Mapping[str, Any]) -> Image.Image:
        """One picture of a prompt as kohya's JSON prompt files hold them."""
        width, height = (max(64, prompt.get(key, 512) // 8 * 8) for key in ("width", "height"))
        with self.accelerator.autocast():
            texts = prompt.get("prompt", ""), prompt.get("negative_prompt") or ""
            ids = (self.text.ids([text]).to(self.accelerator.device) for text in texts)
            wanted, unwanted = (self.text.encode(self.text_encoder, chunks) for chunks in ids)
            self.pipeline.scheduler = getattr(diffusers, _SAMPLERS[self.options.sample_sampler])(**NOISE)
            return self.pipeline(
                prompt_embeds=wanted,
                negative_prompt_embeds=unwanted,
                width=width,
                height=height,
                num_inference_steps=prompt.get("sample_steps", 30),
                guidance_scale=prompt.get("scale", 7.5),
                generator=torch.Generator().manual_seed(prompt.get("seed", 0)),
            ).images[0]
