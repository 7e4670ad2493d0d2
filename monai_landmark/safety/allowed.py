"""What the configuration of a bundle from elsewhere may name: nothing that reads pickles, loads code or runs commands.

Three lists, for three uses: components that ``_target_`` makes, functions that an expression calls, and things that an
expression passes on. They hold what landmark bundles need; whoever needs more reads the file and trusts its hash.
"""

from __future__ import annotations

__all__ = [
    "ATTRIBUTES",
    "BUILTINS",
    "CALLS",
    "ENVIRONMENT",
    "FIRST_ARGUMENTS",
    "KEYWORDS_ONLY",
    "METHODS",
    "MODULES",
    "TARGETS",
    "TEXTS",
    "VALUES",
]


def _names(prefix: str, names: str) -> set[str]:
    return {f"{prefix}{name}" for name in names.split()}


_TRANSFORMS = """
    Compose Identityd SelectItemsd DeleteItemsd CopyItemsd ConcatItemsd EnsureTyped EnsureChannelFirstd
    CastToTyped ToTensord Resized ResizeWithPadOrCropd Spacingd Rotated Zoomd Flipd Affined CenterSpatialCropd
    SpatialPadd DivisiblePadd CropForegroundd RandAffined RandRotated RandZoomd RandFlipd RandSpatialCropd
    RandCoarseDropoutd ScaleIntensityd ScaleIntensityRanged ScaleIntensityRangePercentilesd NormalizeIntensityd
    ThresholdIntensityd AdjustContrastd HistogramNormalized ClipIntensityPercentilesd GaussianSmoothd
    GaussianSharpend MedianSmoothd RandAdjustContrastd RandGaussianNoised RandGaussianSmoothd RandGaussianSharpend
    RandScaleIntensityd RandShiftIntensityd RandStdShiftIntensityd RandBiasFieldd RandHistogramShiftd
    RandGibbsNoised RandRicianNoised Activationsd AsDiscreted
"""
_ENGINES = """
    SupervisedTrainer SupervisedEvaluator SimpleInferer SlidingWindowInferer Dataset CacheDataset DataLoader
    ThreadDataLoader StatsHandler TensorBoardStatsHandler ValidationHandler LrScheduleHandler EarlyStopHandler
    IgniteMetricHandler MeanDice DiceLoss DiceCELoss DiceFocalLoss
"""
_NETWORKS = "UNet BasicUNet AttentionUnet SegResNet DynUNet DiffusionModelUNet DDPMScheduler DDIMScheduler"
_OWN = """
    data.slice_budget.labeled_slices data.slice_pool.slice_pool results.label_files.LabelWriter
    results.label_volumes.VolumeCollector results.organ_report.OrganReport transforms.LoadSliced
    data.budget.labeled_films data.drawn.drawn_films data.pool.hold_out data.pool.pretraining_pool
    engines.AverageHandler engines.DrawSampler engines.GlobalLossHandler engines.KeyedDataset engines.KeyedSteps
    engines.MixtureInferer engines.ModelSaver engines.NonFiniteLossGuard engines.PrecisionInferer
    engines.ProgressHandler engines.ProgressSchedule engines.ThroughputHandler engines.TrainingStateSaver
    engines.TransferReportHandler engines.ViewInferer losses.HeatmapRegressionLoss losses.SpatialNLLLoss
    metrics.RadialErrorMetric metrics.SuccessDetectionRate networks.TrainedWeights networks.landmark_network
    networks.trained_network pretraining.pretraining_objective pretraining.handlers.ObjectiveHandler
    pretraining.memorization.MemorizationHandler pretraining.samples.SampleHandler pretraining.trained.trained_objective
    pretraining.validation.DenoisingValidator results.collect.ResultCollector results.evaluate.EvaluationReport
    results.pseudo_labels.pseudo_labeled_films results.writers.ResultWriter
    transforms.DecodeHeatmapd transforms.DecodeLandmarksd transforms.EncodeHeatmapd transforms.FitFilmd
    transforms.GridToMillimetersd transforms.LoadRadiographd transforms.MillimetersToGridd
    transforms.RandElasticLandmarksd transforms.RandFlipLandmarksd transforms.RandViewsd
"""
_GENERATION = """
    autoencoder.AutoencoderObjective autoencoder.perceptual_loss diffusion.generation_objective
    embedding.embedded_films embedding.film_embedder evaluate.FilmEvaluation generate.FilmGeneration
    latents.film_autoencoder latents.film_codec model.GeneratorSaver model.trained_generator
    reconstruction.ReconstructionHandler round_trip.RoundTrip sheets.EmbeddingSampleHandler slices.SliceEvaluation
"""

TARGETS = frozenset(
    _names("", _TRANSFORMS + _ENGINES + _NETWORKS)
    | _names("monai.transforms.", _TRANSFORMS)
    | _names("monai.networks.nets.", "UNet BasicUNet AttentionUnet SegResNet DynUNet DiffusionModelUNet")
    | {"monai.handlers.IgniteMetricHandler", "ignite.handlers.EMAHandler"}
    | _names("monai_landmark.", _OWN)
    | _names("monai_landmark.generation.", _GENERATION)
    | _names("torch.nn.", "MSELoss L1Loss SmoothL1Loss BCEWithLogitsLoss CrossEntropyLoss")
    | _names("torch.optim.", "Adam AdamW SGD RMSprop")
    | _names("torch.optim.lr_scheduler.", "OneCycleLR CosineAnnealingLR StepLR MultiStepLR LinearLR ReduceLROnPlateau")
    | {"torch.nn.parallel.DistributedDataParallel", "torch.utils.data.DataLoader"}
)

CALLS = frozenset(
    _names(
        "monai_landmark.",
        """
        data.scan_list.load_scans data.scan_list.organs_of data.scan_list.slice_hashes
        data.scan_reader.find_scans data.volume_slices.slices_to_segment data.datalist.Datalist.load
        data.datalist.film_hashes data.datalist.load_datalist data.films.find_films
        data.schema.LandmarkSchema.load engines.image_and generation.carried.carry_landmarks engines.guard_run
        engines.inference_facts engines.keep_freed_memory networks.ensemble_members networks.synchronized
        networks.trained networks.trained_schema networks.transfer_settings pretraining.objective_views
        results.pseudo_labels.draw_weights transforms.shape_of_films uncertainty.Calibration.of_model
        """,
    )
    | _names("monai.", "handlers.from_engine utils.set_determinism utils.str2bool")
    | _names("torch.", "device compile tensor cuda.is_available cuda.set_device cuda.device_count")
    | _names("torch.distributed.", "init_process_group destroy_process_group get_rank is_initialized")
    | {"torch.utils.tensorboard.SummaryWriter"}
)

VALUES = frozenset(
    _names("torch.", "channels_last contiguous_format float16 bfloat16 float32 float64 int64 long bool")
    | {"monai.data.list_data_collate", "monai_landmark.pretraining.DiffusionObjective"}
    | _names("monai_landmark.engines.", "image_told_source loss_of lower_is_better")
    | _names("monai_landmark.pretraining.", "handlers.scalars_of objective_loss")
)

BUILTINS = frozenset("abs all any bool dict float getattr int isinstance len list max min round str sum tuple".split())
"""Called by name; ``getattr`` only for :data:`ATTRIBUTES`."""

ATTRIBUTES = frozenset(
    "conditions count device dtype ema_model films module name network requires_grad schema shape type weights".split()
)
"""Read from a referenced object. Others may lead to a module: some datasets keep ``pickle`` as an attribute."""

METHODS = frozenset("describe eval get items keys parameters run state_dict to train values".split())
"""Called on a referenced object."""

KEYWORDS_ONLY = {
    "torch.distributed.init_process_group": {"backend"},  # init_method may name a file or a server
    "torch.compile": set[str](),
    "torch.utils.tensorboard.SummaryWriter": set[str](),
}
"""Calls with one positional argument at most, and these keywords."""

FIRST_ARGUMENTS = {
    "monai_landmark.networks.trained": (
        1,
        {"architecture", "brightest_hu", "darkest_hu", "organs", "shape", "spatial_size", "schema"},
    )
}
"""Place of an argument that must be one of these words: others of a model card's facts were never looked at."""

TEXTS = frozenset({"monai_landmark.networks.trained", "monai_landmark.networks.trained_schema"})
"""Calls whose answer may be text from a file."""

ENVIRONMENT = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK"})
"""Variables that an expression may read with ``os.environ``."""

MODULES = frozenset(
    {"os", "ignite.handlers"}
    | {
        ".".join(name.split(".")[:count])
        for name in CALLS | VALUES | TARGETS
        for count in range(1, len(name.split(".")))
        if not name.split(".")[count - 1][:1].isupper()
    }
)
"""Modules that a bundle may import, under their own names."""
