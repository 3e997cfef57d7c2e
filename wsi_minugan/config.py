"""Every setting of a run, in one frozen model; the YAML file and the flags both end up here."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wsi_minugan.errors import SettingsError
from wsi_minugan.frozen import FrozenModel

PATCH_PX = 256
MOST_PATCHES_ACROSS = 3
"""Side of the largest square of patches that a model sees at once."""
EDGE_PX = 16
"""Width of a patch's margin that has almost no weight in blending: what shows there only is for the next patch to see."""
OUT_CHANNELS = 3
NUCLEUS_CHANNEL, MITOSIS_CHANNEL = 0, 1
"""Of a patch's scores; the third is the boundary between nuclei."""
SQUARE_PX = 2
"""Side of the squares of pixels that the generator's last layer computes as channels."""
HPF_MIN_MM, HPF_MAX_MM = 0.1, 2.0
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Antialias = bool | Literal[5, 7]
"""Whether a network blurs before each stride: not, over 3 px (True), or over so many px."""
M = TypeVar("M", bound=BaseModel)

_NOT_IN_KEY = (
    # Digests hold the model's own: the same one may be named and found in several ways.
    "model",
    *(
        "device",
        "workers",
        "threads",
        "share_network",
        "batch_size",
        "block_px",
        "stall_s",
        "scheduler",
        "cluster",
    ),
    *("stage_dir", "stage_gb", "on_finish", "overwrite", "quiet"),
)
"""Settings that say how results are made, and do not shape them, and the model as it was typed."""


DRAWN = ("region", "exclude", "tissue_mask")
"""Settings that name what the user drew: what the files hold decides the results, not where they lie."""

FLAGS = {"stride_px": "stride", "block_px": "block", "hotspot_shape": "shape"}
"""Flags that are shorter than their fields."""


class RunSettings(FrozenModel):
    """Settings of `wsi-minugan run`.

    The first group decides the results (its digest is part of a slide's key); the second only how they are made.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    model: str = Field("default", description="Name of a bundled model, or a bundle's folder.")
    precision: Precision = Field("auto", description="Arithmetic of the network.")
    compile: bool = Field(False, description="Compile the network first (torch.compile); for GPUs.")
    stride_px: int = Field(
        192, ge=128, le=PATCH_PX, multiple_of=2, description="Distance of patches, analysis px."
    )
    stain: Literal["auto", "none", "always"] = Field(
        "auto",
        description="Bring the slide's stain to the model's target: as the model's card says, never, or always.",
    )
    mpp: float | None = Field(
        None, gt=0, description="um/px of level 0, for slides that give no plausible value."
    )
    reader: Literal["auto", "openslide", "tiatoolbox"] = Field("auto", description="What opens the slides.")
    tissue: bool = Field(True, description="Analyse tissue only, or everything.")
    nuclei: bool = Field(True, description="Write nuclei.parquet and the nuclei mask.")
    operating_point: Literal["balanced", "sensitive", "specific"] = Field(
        "balanced",
        description="The model's threshold by name: sensitive for a reviewer who deletes, specific for few false positives.",
    )
    mitosis_threshold: float | None = Field(
        None, gt=0, lt=1, description="Least score of a mitosis, instead of the operating point's."
    )
    hotspot_mm2: float | None = Field(
        None, gt=0, le=1000, description="Area of the hot spot; default ten fields."
    )
    hpf_diameter_mm: float = Field(
        0.5, gt=HPF_MIN_MM, lt=HPF_MAX_MM, description="Diameter of one high-power field."
    )
    hotspot_shape: Literal["circle", "rectangle"] = Field("circle", description="Shape of the hot spot.")
    aspect: str = Field("4:3", description="Width to height of a rectangular hot spot.")
    min_tissue: float = Field(
        0.0, ge=0, le=1, description="Least share of the hot spot that must be tissue, if any place has it."
    )
    hotspots: int = Field(1, ge=1, le=20, description="How many hot spots that do not overlap.")
    fields: Literal["free", "adjacent"] = Field(
        "free", description="How the ten fields lie: anywhere, or each touching another."
    )
    region: Path | None = Field(
        None,
        description="GeoJSON of what to analyse (a tumour drawn in QuPath), or a folder with SLIDE_ID.geojson.",
    )
    exclude: Path | None = Field(None, description="GeoJSON of what to leave out, or a folder of such.")
    tissue_mask: Path | None = Field(
        None, description="GeoJSON or PNG of the tissue, in place of what is found, or a folder of such."
    )
    pseudonyms: bool = Field(False, description="Name results by number; the key goes to pseudonyms.csv.")
    bounds_offset: bool = Field(
        False,
        description="Count mitoses.geojson from the corner of the slide's bounds, where QuPath crops to them.",
    )
    tolerate_tiles: int = Field(
        0, ge=0, description="Leave out up to this many tiles of a slide that do not decode."
    )

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the network runs.")
    workers: int | None = Field(None, ge=1, description="Worker processes; default one per core.")
    threads: int = Field(1, ge=1, description="Torch threads of each worker.")
    share_network: bool | None = Field(
        None,
        description="One process runs the network for all workers; by default where there is a GPU, which only this process holds.",
    )
    batch_size: int = Field(8, ge=1, description="Patches per forward pass.")
    block_px: int = Field(
        4096, ge=512, multiple_of=512, description="Side of a block (a shard), analysis px."
    )
    stall_s: float = Field(
        60.0, gt=0, le=86_400, description="Longest wait for one read of a slide, in seconds."
    )
    scheduler: str | None = Field(None, description="Address of a Dask scheduler; default a local cluster.")
    cluster: str = Field("local", description="'local', or a YAML file of a cluster (jobs/clusters).")
    stage_dir: Path | None = Field(
        None, description="Copy slides here while the one before is computed; needed for s3:// and https://."
    )
    stage_gb: float = Field(200.0, gt=0, description="Most space used in --stage-dir, in GB.")
    on_finish: str | None = Field(
        None, description="Command to run at the end (no shell); OUT and the tally are in its environment."
    )
    overwrite: bool = Field(False, description="Replace what another run left in the output folder.")
    quiet: bool = Field(False, description="Print errors and the summary only.")

    @field_validator("aspect")
    @classmethod
    def _plausible(cls, value: str) -> str:
        sides = re.fullmatch(r"([1-9][0-9]{0,2}):([1-9][0-9]{0,2})", value, re.ASCII)
        if sides is None:
            raise ValueError("must be two whole numbers with a colon, such as 4:3")
        if not 0.1 <= int(sides[1]) / int(sides[2]) <= 10:
            raise ValueError("must be between 1:10 and 10:1")
        return value

    @field_validator(*DRAWN)
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.absolute()  # a retry may come from another folder

    @property
    def aspect_ratio(self) -> float:
        """Width of a rectangular hot spot over its height.

        Returns
        -------
        float
            Above 0.
        """
        width, height = map(int, self.aspect.split(":"))
        return width / height

    @property
    def hotspot_area_mm2(self) -> float:
        """Area of the hot spot: as given, or ten fields of `hpf_diameter_mm`.

        Returns
        -------
        float
            mm2.
        """
        return self.hotspot_mm2 or 10 * math.pi * (self.hpf_diameter_mm / 2) ** 2

    def results_key(self) -> dict[str, Any]:
        """Return the settings that, with the slide and the model, decide the results; for digests and manifests.

        Returns
        -------
        dict of str to Any
            JSON's types.
        """
        found = self.model_dump(mode="json", exclude=set(_NOT_IN_KEY))
        return found | {name: content_of(getattr(self, name)) for name in DRAWN}


def content_of(path: Path | None) -> str | None:
    """Return the SHA-256 of a file, or of the files in a folder; None without one. What cannot be read has an empty digest.

    Parameters
    ----------
    path : Path or None
        A file, or a folder whose files count.

    Returns
    -------
    str or None
        64 hexadecimal digits.
    """
    if path is None:
        return None
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(file.name.encode() if path.is_dir() else b"")
            digest.update(file.read_bytes())
        except OSError:
            return ""
    return digest.hexdigest()


def load_settings(config: Path | None, flags: dict[str, Any]) -> RunSettings:
    """Merge a YAML file and flags; flags win.

    Parameters
    ----------
    config : Path, optional
        YAML file with keys of `RunSettings`.
    flags : dict
        Flags the user gave; values of None count as not given.

    Returns
    -------
    RunSettings
        The merged settings.

    Raises
    ------
    SettingsError
        If the file cannot be read, or a setting is unknown or out of range.
    """
    values: dict[str, Any] = {}
    if config is not None:
        try:
            loaded = load_yaml(config.read_text("utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
            raise SettingsError(
                f"The configuration {config} cannot be read: {e}. Give a YAML file of settings."
            ) from e
        if loaded is not None and not isinstance(loaded, dict):
            raise SettingsError(f"The configuration {config} must hold lines of 'setting: value'.")
        values |= _fields(config, loaded or {})
    values |= {k: v for k, v in flags.items() if v is not None}
    try:
        return RunSettings.model_validate(values)
    except ValidationError as e:
        raise SettingsError(f"Settings do not fit: {problems_in(e)}. See 'wsi-minugan run --help'.") from e


def _fields(config: Path, loaded: dict[Any, Any]) -> dict[str, Any]:
    """Return settings by their fields; a setting may be written like its flag, but not twice in two ways."""
    written: dict[str, Any] = {}
    for key in loaded:
        if (twice := written.setdefault(_field(key), key)) is not key:
            raise SettingsError(
                f"The configuration {config} gives one setting twice, as '{twice}' and as '{key}'. Keep one."
            )
    return {name: loaded[key] for name, key in written.items()}


def _field(key: object) -> str:
    """Return the field that a key of a YAML file names, also where it is written like the flag."""
    name = str(key).removeprefix("--").replace("-", "_")
    return next((field for field, flag in FLAGS.items() if flag == name), name)


_MOST_YAML = 2**20
"""Characters of the largest YAML file that is read; those of this project have a few hundred."""
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key that stands twice is refused: of the two values it would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping's keys and values."""
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            # Merged keys (<<) may be told anew: that is what they are for.
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = self.construct_object(key, deep=True), key.start_mark.line + 1
            if name in seen:
                raise yaml.YAMLError(f"'{key.value}' stands twice, in lines {seen[name]} and {line}")
            seen[name] = line
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """Return what a YAML text says, without any object but plain values, and no key twice.

    Parameters
    ----------
    text : str
        Untrusted YAML.

    Returns
    -------
    Any
        Mappings, lists and plain values.

    Raises
    ------
    yaml.YAMLError
        If it says nothing that can be read, is far too large, or a key stands twice.
    ValueError, RecursionError
        If a value is none of its kind, or the text is nested too deep.
    """
    if len(text) > _MOST_YAML:
        raise yaml.YAMLError(f"it has more than {_MOST_YAML} characters")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _values_in(node, {}) > _MOST_VALUES:
            raise yaml.YAMLError(f"it stands for more than {_MOST_VALUES} values")
        return loader.construct_document(node)
    except (AttributeError, LookupError, TypeError, ArithmeticError) as e:
        # What PyYAML raises of a value that is not what its tag says, as of "!!timestamp" without a time.
        raise yaml.YAMLError("a value is not what its tag says") from e
    finally:
        loader.dispose()


def _values_in(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values a node stands for, with all that its aliases repeat; infinite where it holds itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        inner = (
            node.value
            if isinstance(node, yaml.SequenceNode)
            else [part for pair in node.value for part in pair]
        )
        known[id(node)] = 1 + sum(_values_in(part, known) for part in inner)
    return known[id(node)]


def read_yaml(path: Path, model: type[M], what: str) -> M:
    """Read a YAML file into a model.

    Parameters
    ----------
    path : Path
        The file.
    model : type
        A pydantic model.
    what : str
        What the file is, for messages.

    Returns
    -------
    instance of `model`
        The content, checked.

    Raises
    ------
    SettingsError
        If it cannot be read or does not fit.
    """
    try:
        return model.model_validate(load_yaml(path.read_text("utf-8")))
    except ValidationError as e:
        raise SettingsError(f"The {what} {path} does not fit: {problems_in(e)}.") from e
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
        raise SettingsError(f"The {what} {path} cannot be read: {e}.") from e


def problems_in(error: ValidationError) -> str:
    """Return what a model did not take, field by field.

    Parameters
    ----------
    error : ValidationError
        Of pydantic.

    Returns
    -------
    str
        Each field with what is wrong, separated by semicolons.
    """
    return "; ".join(f"{'.'.join(map(str, i['loc']))}: {i['msg']}" for i in error.errors())
