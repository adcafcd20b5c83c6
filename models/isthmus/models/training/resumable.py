"""A training that may be cut off at any time: a checkpoint after every epoch, and the rules that all trainings here share.

A run that is taken up again gives the same result in kind, not bit for bit: the order of the pictures goes on, but what the
processor holds in flight does not. Checkpoints hold tensors, numbers, strings and containers of these, and are read as
such: a file that would run code is refused.
"""

from __future__ import annotations

import io
import pickle
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from isthmus.models.progress import Report
from isthmus.models.training.processors import fastest
from isthmus.proto.errors import DataError

M = TypeVar("M", bound=nn.Module)
FORGOTTEN = 5.0
"""The averaged weights' memory fits into a run at least so many times: e^-5, under a hundredth, is left of the beginning."""
WARM_UP = 0.1
"""The share of a run in which the learning rate rises: momentum and batch norms settle before steps are large."""
DAMAGED = (EOFError, OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError)
"""What torch raises, beside pickle's UnpicklingError, for a file that was cut off or is something else."""
NEEDED = {"identity", "epochs_done", "seed", "averaged"}
"""The keys that every checkpoint has."""


class Stateful(Protocol):
    """A part of a run that a checkpoint holds: a module or an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """The part's tensors and numbers."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take them up. Raises KeyError, RuntimeError or ValueError when they are those of another part."""


class ResumableRun(ABC, Generic[M]):
    """One run: what learns, its running average, and the generators that make it repeatable.

    A subclass says what its parts are (`state`) and how one epoch of it goes.
    """

    averaged: M
    resumed_line = "resumed after epoch {done} of {epochs}"
    epoch_line = "epoch {done} of {epochs}: {losses}, {took_s:.0f} s"

    def __init__(self, *, seed: int, epochs: int, identity: Mapping[str, object]) -> None:
        """`identity` is what a checkpoint must have been made with for this run to go on from it."""
        torch.manual_seed(seed)
        self.seed, self.epochs, self.identity = seed, epochs, dict(identity)
        self.device = fastest()
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.epochs_done = 0

    @property
    @abstractmethod
    def state(self) -> dict[str, Stateful]:
        """The parts that a checkpoint holds, by name; `averaged` is among them."""

    @abstractmethod
    def epoch(self, report: Report) -> str:
        """Train on every picture once; returns the mean losses as text."""

    def before_first_epoch(self, checkpoint: Path, report: Report) -> None:
        """Do what a run without a checkpoint needs; nothing, unless a subclass needs something."""

    def run(self, checkpoint: Path, report: Report) -> M:
        """Train to the end, resuming from `checkpoint` if it exists; returns the averaged module."""
        if checkpoint.is_file():
            self.load(checkpoint)
            report(self.resumed_line.format(done=self.epochs_done, epochs=self.epochs))
        else:
            self.before_first_epoch(checkpoint, report)
        while self.epochs_done < self.epochs:
            began = time.monotonic()
            losses = self.epoch(report)
            self.epochs_done += 1
            self.save(checkpoint)
            took_s = time.monotonic() - began
            report(self.epoch_line.format(done=self.epochs_done, epochs=self.epochs, losses=losses, took_s=took_s))
        return self.averaged

    def save(self, path: Path) -> None:
        """Write everything needed to go on: to another name, then renamed, so that a killed run keeps its last checkpoint."""
        state = {
            **{name: part.state_dict() for name, part in self.state.items()},
            "identity": self.identity,
            "epochs_done": self.epochs_done,
            "seed": self.seed,
            "rng": self.rng.bit_generator.state,
            "generator": self.generator.get_state(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Take up a checkpoint. Raises DataError when it is none, or one of another run or architecture."""
        state = read_checkpoint(path)
        if other := [key for key, value in self.identity.items() if state["identity"].get(key) != value]:
            raise DataError(
                f"{path}: a checkpoint of another run ({', '.join(other)} differ); name another, or delete it"
            )
        try:
            for name, part in self.state.items():
                part.load_state_dict(state[name])
            self.rng.bit_generator.state = state["rng"]
            self.generator.set_state(state["generator"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise other_architecture(path, error) from error
        self.epochs_done, self.seed = state["epochs_done"], state["seed"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; nothing in the file is executed. Raises DataError when the file is something else."""
    content = io.BytesIO(path.read_bytes())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles that torch would not write
            state = torch.load(content, weights_only=True, map_location="cpu")
    # A damaged file raises any of these, and one that would run code raises UnpicklingError before it does.
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise DataError(f"{path}: not a checkpoint, or a damaged one; delete it to begin anew") from error
    if not isinstance(state, dict) or not state.keys() >= NEEDED or not isinstance(state["identity"], dict):
        raise DataError(f"{path}: not a checkpoint of a training, or one of an older version; delete it to begin anew")
    return state


def other_architecture(path: Path, error: Exception) -> DataError:
    """The error for a checkpoint whose tensors are not those of the run."""
    return DataError(f"{path}: a checkpoint of another architecture ({error})")


def learning_rate(progress: float, peak: float, warm_up: float = WARM_UP) -> float:
    """The learning rate at `progress` in [0, 1]: linear up to `peak`, then linear down to a hundredth of it."""
    if progress < warm_up:
        return peak * (0.05 + 0.95 * progress / warm_up)
    return peak * max(0.01, (1 - progress) / (1 - warm_up))


def prepare(optimisers: Iterable[torch.optim.Optimizer], peaks: Iterable[float], progress: float) -> None:
    """Clear the gradients and set the learning rates for the step at `progress`; one peak for each optimiser."""
    for optimiser, peak in zip(optimisers, peaks, strict=True):
        optimiser.zero_grad(set_to_none=True)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, peak)


def averaging(most: float, steps: int) -> float:
    """The share of themselves that averaged weights keep at each of `steps` steps: `most`, and less in a short run.

    An average that forgets as slowly in a short run as in a long one would still be mostly what it began with.
    """
    return min(most, max(0.0, 1 - FORGOTTEN / max(1, steps)))


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move `average` towards the weights of `network`; statistics of the batch norms included."""
    for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)
