"""What was found on a slide, as tables, arrays and a picture."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.api.features import read_features
from wsi_minugan.api.folders import ResultFolder, empty_folder
from wsi_minugan.api.masks import Mask, read_masks
from wsi_minugan.counting.models import Count
from wsi_minugan.errors import OutputError
from wsi_minugan.outputs import geojson
from wsi_minugan.outputs.manifest import read_manifest
from wsi_minugan.outputs.models import Manifest

if TYPE_CHECKING:
    import geopandas as gpd

_HTML_PX = 480


@dataclass(frozen=True, repr=False)
class Result:
    """The results of one slide; each part is read when it is asked for, and once.

    All coordinates are slide pixels (level 0), x to the right and y down. Tables have no coordinate reference
    system, because a slide is no map.

    Examples
    --------
    >>> result = Result.open("OUT/a")  # doctest: +SKIP
    >>> result.mitoses[["area_um2", "peak_score"]].head()  # doctest: +SKIP
    """

    _folder: ResultFolder

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Result:
        """Open the folder of one slide, as `wsi-minugan run`, `analyze` or `save` wrote it.

        Parameters
        ----------
        folder : str or path
            ``OUT/SLIDE``.

        Returns
        -------
        Result
            Its results.

        Raises
        ------
        OutputError
            If it holds no finished result.
        """
        read_manifest(Path(folder))
        return cls(ResultFolder(Path(folder)))

    @property
    def folder(self) -> Path:
        """The folder that the files lie in.

        Returns
        -------
        Path
            ``OUT/SLIDE``, or a temporary folder.
        """
        return self._folder.path

    @cached_property
    def manifest(self) -> Manifest:
        """Slide, model, settings, versions and the digest of every file.

        Returns
        -------
        Manifest
            The content of ``manifest.json``.

        Raises
        ------
        OutputError
            If the file cannot be read.
        """
        return read_manifest(self.folder)

    @cached_property
    def count(self) -> Count:
        """All mitoses, the hot spot, densities and scores; the content of count.json.

        Returns
        -------
        Count
            See ``schemas/count.schema.json``.

        Raises
        ------
        OutputError
            If the file cannot be read.
        """
        try:
            return Count.model_validate_json((self.folder / "count.json").read_bytes())
        except (OSError, ValueError) as e:
            raise _unreadable(self.folder / "count.json", e) from e

    @property
    def mpp(self) -> float:
        """Resolution of the slide, um per pixel.

        Returns
        -------
        float
            um per level-0 pixel.
        """
        return self.manifest.slide.mpp

    @cached_property
    def mitoses(self) -> gpd.GeoDataFrame:
        """A row for each mitosis: polygon, area_um2, peak_score and mean_score (0 to 1); the index is its UUID.

        Returns
        -------
        GeoDataFrame
            Shapes in level-0 pixels of the slide, without a coordinate reference system.

        Raises
        ------
        OutputError
            If the file cannot be read.
        """
        return self._table(geojson.MITOSIS)

    @cached_property
    def hotspot(self) -> gpd.GeoDataFrame:
        """The hot spot's circle with its mitoses, mitoses_per_mm2 and area_mm2; no row where there are no mitoses.

        Returns
        -------
        GeoDataFrame
            One row at most; the shape is in level-0 pixels of the slide.

        Raises
        ------
        OutputError
            If the file cannot be read.
        """
        table, spot = self._table(geojson.HOTSPOT), self.count.hotspot
        numbers = {n: getattr(spot, n) for n in ("mitoses", "area_mm2", "mitoses_per_mm2", "tissue_fraction")}
        return table.assign(**numbers)

    @cached_property
    def nuclei(self) -> gpd.GeoDataFrame:
        """A row for each nucleus: polygon, centroid_x_px, centroid_y_px, area_um2; the index is its number in the mask.

        Returns
        -------
        GeoDataFrame
            Shapes in level-0 pixels of the slide, without a coordinate reference system.

        Raises
        ------
        OutputError
            If the slide was analysed without nuclei, or the file is damaged.
        """
        import geopandas as gpd

        path = self.folder / "nuclei.parquet"
        if "nuclei.parquet" not in self.manifest.files:
            raise OutputError(f"{self.folder} holds no nuclei: it was made with nuclei=False (--no-nuclei).")
        try:
            table = gpd.read_parquet(path)
        except (OSError, ValueError) as e:
            raise _unreadable(path, e) from e
        return table.set_index("nucleus")

    @cached_property
    def masks(self) -> Mapping[str, Mask]:
        """The masks by name: classes, mitoses, nuclei, mitosis_score, coverage.

        Returns
        -------
        mapping of str to Mask
            Dask arrays with their scale in um.
        """
        return read_masks(self._folder, self.manifest)

    def overview(self) -> NDArray[np.uint8]:
        """Return the slide with its mitoses, heat map and hot spot, RGB, shape ``(h, w, 3)``.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            A small picture of the whole slide.

        Raises
        ------
        OutputError
            If the file cannot be read.
        """
        path = self.folder / "overview.png"
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise OutputError(
                f"{path} cannot be read. Run the same command again: only that slide is done again."
            )
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def save(self, folder: str | os.PathLike[str]) -> Result:
        """Copy all files into a new or empty folder, and return the result that lies there.

        Parameters
        ----------
        folder : str or path
            The folder; made if missing.

        Returns
        -------
        Result
            The copy.

        Raises
        ------
        OutputError
            If it is not empty, or cannot be written.
        """
        kept = empty_folder(Path(folder))
        try:
            shutil.copytree(self.folder, kept.path, dirs_exist_ok=True)
        except (OSError, shutil.Error) as e:
            raise OutputError(
                f"The results cannot be copied to {kept.path}: {e}. Free some space, or check the disk."
            ) from e
        return Result(kept)

    def _table(self, label: str) -> gpd.GeoDataFrame:
        import geopandas as gpd

        path = self.folder / "mitoses.geojson"
        try:
            found = read_features(path, label, self.manifest.geojson_origin_px)
        except (OSError, ValueError) as e:
            raise _unreadable(path, e) from e
        columns = {_column(k): v for k, v in found.measurements.items()}
        return gpd.GeoDataFrame(columns, geometry=found.shapes, index=list(found.ids))

    def __repr__(self) -> str:
        spot = self.count.hotspot
        return (
            f"Result({self.manifest.slide.slide_id!r}, mitoses={self.count.mitoses}, "
            f"hot spot: {spot.mitoses} in {spot.area_mm2:.2f} mm2, {self.folder})"
        )

    def _repr_html_(self) -> str:
        """Return the picture and the count, for notebooks."""
        picture = self.overview()
        size = (_HTML_PX, max(1, round(_HTML_PX * picture.shape[0] / picture.shape[1])))
        small = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), size, interpolation=cv2.INTER_AREA)
        data = base64.b64encode(cv2.imencode(".png", small)[1].tobytes()).decode()
        spot = self.count.hotspot
        return (
            f'<img alt="Slide with mitoses and hot spot" width="{_HTML_PX}" src="data:image/png;base64,{data}">'
            f"<p>{self.count.mitoses} mitoses; {spot.mitoses} in the hot spot of {spot.area_mm2:.2f} mm&sup2;. Research use only.</p>"
        )


def _column(measurement: str) -> str:
    """Return a measurement's name as a column: "Area um2" is area_um2."""
    return measurement.strip().lower().replace(" ", "_")


def _unreadable(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"{path} cannot be read: {error}. Run the same command again: only that slide is done again."
    )
