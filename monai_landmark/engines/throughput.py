"""How fast a training is: films and floating-point operations a second, and what the device could do."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from monai_landmark.engines.precision import fast_dtype
from monai_landmark.processes import process_rank

__all__ = ["ThroughputHandler", "matrix_rate", "step_flops"]

_LOGGER = logging.getLogger(__name__)


def step_flops(engine: Engine, batch: Any) -> int:
    """Floating-point operations of one forward and backward pass, as torch's counter knows them.

    Matrix products and convolutions are counted, a multiplication and an addition as two; normalization, activations
    and the optimizer are not. Work that is done again (gradient checkpointing) counts again. The passes run on copies
    of weights and buffers and under a generator of their own, so the training goes on bit for bit as if nothing had
    been measured; what a forward pass changes must be buffers for that, as with any PyTorch module.

    Args:
        engine: a :class:`monai.engines.SupervisedTrainer`.
        batch: what its loader gave.

    Returns:
        The number of operations for the whole batch.
    """
    trainer: Any = engine
    prepared = trainer.prepare_batch(batch, engine.state.device, trainer.non_blocking, **trainer.to_kwargs)
    inputs, targets, args, kwargs = (*prepared, (), {}) if len(prepared) == 2 else prepared
    passes = _Passes(_plain(trainer.network), trainer.inferer, trainer.loss_function)
    # copies leave gradients, buffers and the hooks of distributed training alone
    tensors = {name: buffer.clone() for name, buffer in passes.named_buffers()}
    for name, weight in passes.named_parameters():
        tensors[name] = weight.detach().clone().requires_grad_(weight.requires_grad)
    devices = [engine.state.device] if torch.device(engine.state.device).type == "cuda" else []
    # attention as plain products: the fused ones are not all known to the counter
    with torch.random.fork_rng(devices), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        functional_call(passes, tensors, (inputs, targets, args, kwargs))
    return int(counter.get_total_flops())


class _Passes(nn.Module):
    """Both passes as one module, so that what gradient checkpointing computes again runs on the same copies."""

    def __init__(self, network: nn.Module, inferer: Any, loss_function: Any) -> None:
        super().__init__()
        self.network, self.inferer, self.loss_function = network, inferer, loss_function

    def forward(self, inputs: Any, targets: Any, args: Any, kwargs: Any) -> None:
        """One step without its update."""
        output = self.inferer(inputs, self.network, *args, **kwargs)
        self.loss_function(output, targets).mean().backward()


def _plain(network: nn.Module) -> nn.Module:
    """The network without the wrappers of compilation and distributed training."""
    for wrapper in ("_orig_mod", "module", "_orig_mod"):
        network = getattr(network, wrapper, network)
    return network


def matrix_rate(device: torch.device | str, dtype: torch.dtype, size: int = 4096, seconds: float = 0.5) -> float:
    """What a device reaches on the easiest work there is: products of large square matrices.

    Args:
        device: where to measure.
        dtype: type of the matrices.
        size: rows and columns.
        seconds: how long to measure.

    Returns:
        Floating-point operations a second.
    """
    device = torch.device(device)
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))

    def timed(products: int) -> float:
        """Seconds for so many products."""
        start = time.perf_counter()
        for _ in range(products):
            torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    timed(3)  # libraries are loaded and clocks go up
    products = 1
    while (taken := timed(products)) < seconds:
        products = max(products + 1, int(1.2 * products * seconds / max(taken, 1e-6)))
    return 2.0 * size**3 * products / taken


class ThroughputHandler:
    """Measure films and operations a second over the time that goes into steps; validation and files do not count.

    Operations are counted at the first step, and again when the network begins to return other terms (an objective
    whose last part costs more). In distributed training the figures are those of one process, and the first one tells
    them; all must have this handler, because objectives that compare films ask the other processes while they count.

    Args:
        matrix_share: also measure, on CUDA, what share of the rate of large matrix products the training reaches.
        dtype: type in which the network multiplies: ``"auto"`` as for
            :class:`~monai_landmark.engines.PrecisionInferer`, or ``"float32"``, ``"bfloat16"``.
        writer: a TensorBoard ``SummaryWriter`` that receives the rates after every epoch.

    Attributes:
        film_flops: operations for one film, forward and backward, of the latest count.
        films: films seen by this process, the first step's left out (it warms up).
        seconds: time of their steps.
        flops: their operations.
        peak: measured rate of matrix products in operations a second, or None.
    """

    def __init__(self, matrix_share: bool = False, dtype: str = "auto", writer: Any = None) -> None:
        self.matrix_share, self.dtype, self.writer = matrix_share, dtype, writer
        self.film_flops, self.films, self.seconds, self.flops = 0.0, 0, 0.0, 0.0
        self.peak: float | None = None
        self._asked: float | None = None
        self._counted: dict[frozenset[str], float] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._batch_asked)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    @property
    def films_per_second(self) -> float:
        """Films a second, nan before the second step."""
        return self.films / self.seconds if self.seconds else float("nan")

    @property
    def flops_per_second(self) -> float:
        """Operations a second, nan before the second step."""
        return self.flops / self.seconds if self.seconds else float("nan")

    def _started(self, engine: Engine) -> None:
        if not engine.has_event_handler(self._step_completed, Events.ITERATION_COMPLETED):
            # after all others, so that the time of counting is nobody's
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._step_completed)
        device = torch.device(engine.state.device)
        if self.matrix_share and device.type == "cuda":
            dtype = fast_dtype(device) if self.dtype == "auto" else getattr(torch, self.dtype)
            self.peak = matrix_rate(device, dtype)
            self._tell("large matrix products: %.1f TFLOP/s in %s", self.peak / 1e12, dtype)

    @staticmethod
    def _tell(message: str, *facts: Any) -> None:
        if process_rank() == 0:
            _LOGGER.info(message, *facts)

    def _batch_asked(self, engine: Engine) -> None:
        self._asked = time.perf_counter()

    def _step_completed(self, engine: Engine) -> None:
        seconds = 0.0 if self._asked is None else time.perf_counter() - self._asked
        output: Any = engine.state.output
        films = len(output[CommonKeys.IMAGE])
        terms = output[CommonKeys.PRED]
        key = frozenset(terms) if isinstance(terms, dict) else frozenset[str]()
        if first := key not in self._counted:
            self._counted[key] = step_flops(engine, engine.state.batch) / films
            self._tell("%.2f GFLOP per film, forward and backward", self._counted[key] / 1e9)
        self.film_flops = self._counted[key]
        if not first:
            self.films, self.seconds = self.films + films, self.seconds + seconds
            self.flops += films * self.film_flops

    def _epoch_completed(self, engine: Engine) -> None:
        if self.writer is not None and self.seconds:
            self.writer.add_scalar("speed/films_per_second", self.films_per_second, engine.state.iteration)
            self.writer.add_scalar("speed/gflop_per_second", self.flops_per_second / 1e9, engine.state.iteration)

    def _completed(self, engine: Engine) -> None:
        if not self.seconds:
            return
        share = "" if self.peak is None else f", {self.flops_per_second / self.peak:.1%} of the matrix rate"
        self._tell(
            "%.2f films/s, %.1f GFLOP/s over %d films%s",
            *(self.films_per_second, self.flops_per_second / 1e9, self.films, share),
        )
