"""An experiment's settings: one YAML file each under training/experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from wsi_minugan.config import EDGE_PX, Antialias, problems_in, read_yaml
from wsi_minugan.errors import SettingsError
from wsi_minugan.frozen import FrozenModel


class Source(FrozenModel):
    """Where some of a batch's patches come from.

    Attributes
    ----------
    datasets : tuple of str
        Names of data sets in the index.
    splits : tuple of str
        Splits of the index; "" is that of images that belong to none.
    at : {"mitoses", "look_alikes", "hard", "anywhere"}
        What the patches lie around. "hard" are dark nuclei, and later the model's own false
        positives.
    per_batch : int
        Patches of this source in each batch.
    even : bool
        Draw a patient first, and then one of its places.
    mosaic : float
        Share of patches put together from four of half the side.
    """

    datasets: tuple[str, ...]
    splits: tuple[str, ...] = Field(
        ("train", ""), description='Of the index; "" is that of images that belong to none.'
    )
    at: Literal["mitoses", "look_alikes", "hard", "anywhere"]
    per_batch: int = Field(ge=1)
    even: bool = Field(
        False,
        description="Draw a patient first and then one of its places, so that each patient has one voice.",
    )
    mosaic: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of patches put together from four of half the side; for small crops.",
    )


class Augmentation(FrozenModel):
    """Ranges of random changes; the defaults change nothing but orientation.

    Attributes
    ----------
    rotate : bool
        Turn and mirror.
    scale : tuple of float
        Smallest and largest enlargement.
    shift_px : float
        Greatest shift, in x and in y.
    stain, ground, stain_transfer : float
        Strength of stain changes, and shares of patches partly on bare ground or stained as
        another slide; 0 to 1.
    blur, jpeg, sharpen, reduce : float
        Shares of patches that are blurred, compressed, sharpened, or reduced and enlarged.
        Together at most 1, since a patch gets one of them at most.
    compressed, crop : float
        Shares of patches from images compressed before they are turned, and of patches mirrored
        beyond a crop.
    """

    former_names: ClassVar[Mapping[str, str]] = {"style": "stain_transfer"}

    rotate: bool = True
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    shift_px: float = Field(0.0, ge=0)
    stain: float = Field(0.0, ge=0, le=2, description="Strength of stain and colour changes.")
    blur: float = Field(0.0, ge=0, le=1, description="Share of patches blurred.")
    jpeg: float = Field(0.0, ge=0, le=1, description="Share of patches compressed as they are.")
    compressed: float = Field(
        0.0, ge=0, le=1, description="Share of patches from images compressed before they are turned."
    )
    crop: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of patches cut from a crop around their place, mirrored beyond it.",
    )
    ground: float = Field(0.0, ge=0, le=1, description="Share of patches partly on bare ground.")
    sharpen: float = Field(0.0, ge=0, le=1)
    reduce: float = Field(0.0, ge=0, le=1, description="Share of patches reduced to 20x to 29x and enlarged.")
    stain_transfer: float = Field(
        0.0, ge=0, le=1, description="Share of patches in the stain densities of another patient's slide."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale goes from the smaller to the larger")
        if self.blur + self.jpeg + self.sharpen + self.reduce > 1:
            raise ValueError("blur, jpeg, sharpen and reduce are shares of all patches, together at most 1")
        return self


class Mining(FrozenModel):
    """Hard negatives: dark nuclei first, then what the model itself takes for mitoses.

    Attributes
    ----------
    every_steps : int
        Steps from one search for false positives to the next.
    dark_per_image : int
        Most dark nuclei of an image, before the first search.
    least_score : float
        Mitosis score, 0 to 1, from which a peak away from mitoses is a hard negative.
    share_of_images : float
        Share of the source's images that each search looks at, drawn at random.
    """

    every_steps: int = Field(ge=1)
    dark_per_image: int = 60
    least_score: float = 0.12
    share_of_images: float = Field(0.5, gt=0, le=1)


class Validation(FrozenModel):
    """Early stop: when a figure on patches has not grown for a while.

    The patches lie around mitoses of the split "val", on images that no source draws from; also in the folds of a cross-validation.

    Attributes
    ----------
    every_steps : int
        Steps from one validation to the next.
    patience : int
        How many validations without a new best end the training.
    figure : {"dice", "f1"}
        What is compared: overlap of outlines, or detection.
    patches : int
        Most patches.
    """

    every_steps: int = Field(ge=1)
    patience: int = Field(5, ge=1, description="How many validations without a new best end the training.")
    figure: Literal["dice", "f1"] = "f1"
    patches: int = Field(200, ge=1)


class Consistency(FrozenModel):
    """Every patch is shown twice, shifted and in other colours; where the two overlap, the scores shall agree.

    Attributes
    ----------
    weight : float
        Weight of the loss; see `fitting.losses.consistency_loss`.
    shift_px : int
        Greatest shift of the second view, in x and in y.
    """

    weight: float = Field(gt=0)
    shift_px: int = Field(
        ge=1, description="Greatest shift in x and y; the strides of the network repeat after 32 px."
    )


class Distillation(FrozenModel):
    """A network of the same kind, the teacher, says what it sees; its scores, softened, are learnt beside the labels.

    The teacher is wider, or sees a patch in several views, or both.

    Attributes
    ----------
    teacher : str
        Path of the teacher's weights.
    weight : float
        Weight of the loss; see `fitting.losses.distillation_loss`.
    temperature : float
        What the logits of both are divided by.
    views : {1, 4}
        As it is, or the mean over the mirrored ones, too.
    antialias : bool, 5, 7 or None
        The teacher's blur; None is the experiment's.
    """

    teacher: str = Field("", description="Its weights (safetensors); their width is read from them.")
    views: Literal[1, 4] = Field(
        1,
        description="4: the mean of the teacher's scores of a patch and its mirror images, which show all phases of the strides.",
    )
    antialias: Antialias | None = Field(
        None, description="The teacher's blur, where it is another than the experiment's."
    )
    weight: float = Field(1.0, gt=0)
    temperature: float = Field(
        2.0,
        ge=1,
        description="Logits of both are divided by it, so that unlikely answers tell something, too.",
    )


class Losses(FrozenModel):
    """Weights and exponents of the losses.

    Attributes
    ----------
    adversarial, feature_matching, supervised, spots : float
        Weights of the terms.
    gamma, focal : float
        Focal exponents of the adversarial and of the supervised term; 0 is the plain
        cross-entropy.
    discriminators : int
        Number of PatchGANs, at 1, 1/2 and 1/4 of the resolution.
    dice : bool
        Whether the supervised term has soft Dice beside the cross-entropy.
    positive_weight, boundary_weight : float
        Weights of mitosis pixels, and of pixels between touching nuclei, over others.
    """

    adversarial: float = Field(0.0, ge=0, description="0: no discriminators.")
    discriminators: int = Field(2, ge=1, le=3)
    gamma: float = Field(0.0, ge=0, description="Focal exponent of the adversarial loss (paper, p. 4).")
    feature_matching: float = Field(5.0, ge=0, description="Lambda; the paper's text says 5.")
    supervised: float = Field(0.0, ge=0, description="Weight of the focal cross-entropy and Dice terms.")
    focal: float = Field(1.0, ge=0, description="Exponent of the supervised focal term.")
    dice: bool = True
    positive_weight: float = Field(1.0, gt=0, description="Weight of mitosis pixels over others.")
    spots: float = Field(
        0.0, ge=0, description="Weight of the term on whole mitoses and on each patch's most suspicious spot."
    )
    boundary_weight: float = Field(
        1.0, gt=0, description="Weight of pixels between touching nuclei over others."
    )


class Experiment(FrozenModel):
    """All that decides a training run.

    Attributes
    ----------
    name : str
        Also the name of its folder among results.
    network : {"minugan", "unet"}
        The generator, or the baseline.
    ngf : int
        Channels of the first layer; a U-Net has twice as many.
    norm : {"instance", "batch"}
        Normalisation. Batch norms have fixed statistics after training, so that patches do not
        depend on each other.
    antialias : bool, 5 or 7
        Blur before convolutions with a stride, of 3 px or of so many.
    fixed_norms : bool
        Train with fixed statistics.
    patch_px : int
        Side of a patch, px of 0.25 um.
    sources : tuple of Source
        What a batch is made of.
    augmentation, losses : Augmentation, Losses
        Changes of patches, and terms of the loss.
    mining, validation, consistency, distillation : optional
        Parts that are left out where they are None.
    steps : int
        Steps of the optimiser.
    learning_rate, betas, weight_decay : float, tuple of float, float
        Of the optimiser.
    warmup_steps : int
        Steps over which the learning rate rises from 0.
    schedule : {"constant", "linear", "cosine"}
        How it falls afterwards.
    ema, clip_norm : float
        Share that a moving average of the weights keeps each step, and longest gradient; 0
        switches either off.
    accumulate : int
        Batches whose gradients make one step.
    precision : {"fp32", "bf16"}
        Arithmetic of the forward pass.
    seed : int
        Of weights, batches and changes.
    checkpoint_every, log_every : int
        Steps between checkpoints, and between rows of metrics.jsonl.
    pseudo_nuclei, start_from : str
        Bundle that labels nuclei, and weights to start from; empty for none.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    network: Literal["minugan", "unet"] = "minugan"
    ngf: int = Field(8, ge=1, le=64)
    norm: Literal["instance", "batch"] = "instance"
    antialias: Antialias = Field(
        False,
        description="Blur before each convolution with a stride (Zhang 2019): true is of 3 px, or 5 or 7.",
    )
    patch_px: int = Field(256, ge=64, multiple_of=32)
    sources: tuple[Source, ...] = Field(min_length=1)
    augmentation: Augmentation = Augmentation()
    mining: Mining | None = None
    validation: Validation | None = None
    losses: Losses = Losses()
    consistency: Consistency | None = None
    distillation: Distillation | None = None
    fixed_norms: bool = Field(
        False, description="Train with the statistics of `start_from`, as they are when the model is used."
    )
    steps: int = Field(ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    ema: float = Field(0.0, ge=0, lt=1, description="0: no moving average of weights.")
    clip_norm: float = Field(0.0, ge=0, description="0: gradients are not clipped.")
    accumulate: int = Field(1, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(0, ge=0)
    checkpoint_every: int = Field(500, ge=1)
    log_every: int = Field(50, ge=1)
    pseudo_nuclei: str = Field(
        "",
        description="Bundle that labels nuclei where nobody did; empty: such pixels are left out of the losses.",
    )
    start_from: str = Field("", description="Weights (safetensors) to start from.")

    @model_validator(mode="after")
    def _views_overlap(self) -> Self:
        most = self.patch_px - 2 * EDGE_PX - 1
        if self.consistency is not None and self.consistency.shift_px > most:
            raise ValueError(
                f"with patches of {self.patch_px} px, consistency.shift_px can be {most} at most: two views of "
                "a patch must overlap"
            )
        return self

    @property
    def batch(self) -> int:
        """Patches in a batch.

        Returns
        -------
        int
            Of all sources.
        """
        return sum(s.per_batch for s in self.sources)


def scaled(experiment: Experiment, datasets: Sequence[str], smaller: Mapping[str, int]) -> Experiment:
    """Return an experiment on other data sets, or at another scale (ngf, patch_px, steps).

    Parameters
    ----------
    experiment : Experiment
        The original.
    datasets : sequence of str
        Names of data sets; none leaves those of the original.
    smaller : mapping of str to int
        New values by setting.

    Returns
    -------
    Experiment
        A new one.

    Raises
    ------
    SettingsError
        If the new values do not fit.
    """
    content = experiment.model_dump() | dict(smaller)
    if datasets:
        content["sources"] = [s | {"datasets": tuple(datasets)} for s in content["sources"]]
    try:
        return Experiment.model_validate(content)
    except ValidationError as e:
        raise SettingsError(
            f"The experiment {experiment.name} does not take these values: {problems_in(e)}."
        ) from e


def load_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Parameters
    ----------
    path : Path
        The YAML file.

    Returns
    -------
    Experiment
        Settings.

    Raises
    ------
    SettingsError
        If it cannot be read or does not fit.
    """
    return read_yaml(path, Experiment, "experiment")
