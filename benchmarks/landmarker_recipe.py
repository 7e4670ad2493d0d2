"""landmarker's own recipe for ISBI 2015, trained for a given time: everything that learns comes from its package.

Its example ``2D-example-ISBI2015-adaptive-heatmap-regression`` (landmarker 0.4.1, MIT): SpatialConfiguration-Net (Payer
et al., Medical Image Analysis 2019), films fitted into 512 x 512, Gaussians whose widths are learned (Thaler et al.,
MELBA 2021), nesterov SGD on one film a step, the gradient's norm held under 10,000, the learning rate halved when the
loss stands still for ten epochs, 200 epochs, local soft-argmax.

Two things differ, and neither can matter before the twelfth epoch or hurts it: the loss that is watched for standing
still is that of the training films, where the example watches the films it is tested on; and the passes over these
after every epoch, which would take processor time, are left out.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from landmarker.data import LandmarkDataset
from landmarker.heatmap import GaussianHeatmapGenerator
from landmarker.heatmap.decoder import heatmap_to_coord
from landmarker.losses import GaussianHeatmapL2Loss
from landmarker.models import OriginalSpatialConfigurationNet
from landmarker.transforms.images import resize_with_pad
from landmarker.transforms.landmarks import resize_landmarks
from landmarker_grid import GRID, to_film
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandHistogramShiftd,
    RandScaleIntensityd,
    ScaleIntensity,
    ScaleIntensityd,
)
from torch import Tensor, nn

from monai_landmark.data.datalist import landmarks_array
from monai_landmark.data.film import Film
from monai_landmark.data.reader import read_film
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError
from monai_landmark.files import replace_file
from monai_landmark.results import LandmarkResult

EPOCHS, SIGMA_PX, GAMMA, ALPHA = 200, 3.0, 100.0, 5.0
RATE, MOMENTUM, DECAY, GRADIENT_NORM = 1e-6, 0.99, 1e-3, 10_000.0
SAVE_EVERY_S = 60.0  # of processor time

Item = Mapping[str, Any]


def fitted(film: Film) -> tuple[Tensor, Tensor]:
    """A film on the network's grid ``(1, H, W)``, and the (rows, columns) that were padded on each side."""
    image, padding = resize_with_pad(torch.from_numpy(film.pixels)[None], GRID)
    return image, torch.tensor(padding, dtype=torch.float32)


def read(item: Item) -> Film:
    """The film of an item of a datalist."""
    return read_film(item["image"], item.get("spacing"))


def augmentation() -> Compose:
    """What the example does to a film each time it is drawn."""
    return Compose(
        [
            ScaleIntensityd("image"),
            RandGaussianNoised("image", prob=0.2, mean=0, std=0.1),
            RandScaleIntensityd("image", factors=0.25, prob=0.2),
            RandAdjustContrastd("image", prob=0.2, gamma=(0.5, 4.5)),
            RandHistogramShiftd("image", prob=0.2),
            ScaleIntensityd("image"),
            RandAffined(
                "image",
                prob=1,
                rotate_range=(-np.pi / 12, np.pi / 12),
                translate_range=(-10, 10),
                scale_range=(-0.1, 0.1),
                shear_range=(-0.1, 0.1),
            ),
        ]
    )


def training_films(items: Sequence[Item], transform: Compose) -> LandmarkDataset:
    """Annotated films as landmarker's own dataset, one after another so that only the fitted ones stay in memory.

    Raises:
        AnnotationError: if a landmark is not annotated, which its loss cannot leave out.
    """
    images, points = [], []
    for item in items:
        film, landmarks = read(item), landmarks_array(item)
        if not np.isfinite(landmarks).all():
            raise AnnotationError("landmarker's loss needs every landmark", file=item["image"], field="landmarks")
        image, padding = fitted(film)
        yx = torch.tensor(landmarks[:, ::-1].copy(), dtype=torch.float32)
        images.append(image)
        points.append(resize_landmarks(yx, film.size, GRID, padding))
    return LandmarkDataset(images, torch.stack(points), transform=transform)


class LandmarkerTraining:
    """The recipe's network with all that trains it; steps are keyed, so a resumed run draws what it would have drawn.

    Args:
        landmarks: how many.
        seed: of the weights, the order of the films, the augmentation and the dropout.
        checkpoint: the state is kept in this file, and taken from it if it is there.
    """

    def __init__(self, landmarks: int, seed: int, checkpoint: Path) -> None:
        torch.manual_seed(seed)
        self.seed, self.checkpoint = seed, checkpoint
        self.network: nn.Module = OriginalSpatialConfigurationNet(in_channels=1, out_channels=landmarks)
        self.generator: nn.Module = GaussianHeatmapGenerator(
            nb_landmarks=landmarks, sigmas=SIGMA_PX, gamma=GAMMA, heatmap_size=GRID, learnable=True
        )
        self.loss: nn.Module = GaussianHeatmapL2Loss(alpha=ALPHA)
        groups = [
            {"params": self.network.parameters(), "weight_decay": DECAY},
            {"params": [self.generator.sigmas]},
            {"params": [self.generator.rotation]},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, nesterov=True)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, factor=0.5, patience=10, cooldown=10)
        self.augmentation = augmentation()
        self.losses: list[float] = []  # of this epoch
        self.step_s: list[float] = []  # processor seconds of every step
        self.earlier_s = 0.0  # processor seconds of the processes before this one
        if checkpoint.is_file():
            self._load()

    @property
    def steps(self) -> int:
        """Steps that were done."""
        return len(self.step_s)

    @property
    def processor_s(self) -> float:
        """Processor seconds of this training: all that its processes did, starting and reading films included."""
        return self.earlier_s + time.process_time()

    def run(self, items: Sequence[Item], seconds: float) -> float:
        """Train until so many processor seconds are spent.

        Args:
            items: the annotated films.
            seconds: of processor time in all, over every process that worked on it; a step that has begun is finished.

        Returns:
            The processor seconds that were spent.
        """
        if self.earlier_s >= seconds:
            return self.earlier_s
        films = training_films(items, self.augmentation)
        saved = self.processor_s
        while self.processor_s < seconds and self.steps < EPOCHS * len(films):
            self.step(films)
            if self.processor_s - saved > SAVE_EVERY_S:
                saved = self._save()
        return self._save()

    def step(self, films: LandmarkDataset) -> None:
        """One film, forward and back; after the last one of an epoch the schedule looks at the epoch's loss."""
        began = time.process_time()
        epoch, number = divmod(self.steps, len(films))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(films))
        key = int(np.random.default_rng([self.seed, epoch, number]).integers(2**31))
        torch.manual_seed(key)
        self.augmentation.set_random_state(key)
        film = films[int(order[number])]
        target = self.generator(film["landmark"][None])
        self.network.train()
        self.optimizer.zero_grad()
        loss = self.loss(self.network(film["image"].as_tensor()[None]), self.generator.sigmas, target)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        self.losses.append(loss.item())
        if not np.isfinite(self.losses[-1]):
            raise SystemExit(f"landmarker's loss is not finite at step {self.steps}; its last state is not overwritten")
        if number + 1 == len(films):
            mean, self.losses = float(np.mean(self.losses)), []
            self.schedule.step(mean)
            print(f"epoch {epoch + 1}: loss {mean:.2f}, {self.processor_s / 60:.1f} processor minutes", flush=True)
        self.step_s.append(time.process_time() - began)

    def predict(self, item: Item, schema: LandmarkSchema) -> LandmarkResult:
        """Landmarks of a film, by landmarker's decoder, in the film's own pixels.

        Its exponential overflows where a learned Gaussian is very narrow; there its argmax takes the place.
        """
        film = read(item)
        image, padding = fitted(film)
        self.network.eval()
        with torch.inference_mode():
            heatmap = self.network(torch.as_tensor(ScaleIntensity()(image)).as_subclass(Tensor)[None])
            found = heatmap_to_coord(heatmap, method="local_soft_argmax")[0]
            peaks = heatmap_to_coord(heatmap, method="argmax")[0]
        found = torch.where(torch.isfinite(found), found, peaks)
        spacing = film.spacing
        known = None if spacing.row_mm is None or spacing.col_mm is None else (spacing.row_mm, spacing.col_mm)
        return LandmarkResult(
            film=item["id"],
            original_size=film.size,
            names=schema.landmarks,
            points_px=to_film(found.numpy(), film.size, padding.numpy()),
            spacing_mm=known,
            spacing_source=spacing.source,
            schema=schema.name,
            model_name=f"landmarker {importlib.metadata.version('landmarker')}",
        )

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("network", "generator", "optimizer", "schedule")}

    def _save(self) -> float:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        spent = self.processor_s
        with replace_file(self.checkpoint) as stream:
            torch.save({**state, "losses": self.losses, "step_s": self.step_s, "processor_s": spent}, stream)
        return spent

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.losses, self.step_s, self.earlier_s = state["losses"], state["step_s"], state["processor_s"]
