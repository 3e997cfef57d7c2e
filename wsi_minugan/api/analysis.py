"""One slide from start to finish, in this process: no cluster, and no output folder unless one is given."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_minugan.api.folders import empty_folder, temporary_folder
from wsi_minugan.api.models import as_predictor
from wsi_minugan.api.result import Result
from wsi_minugan.config import load_settings
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.pipeline.plan import SlidePlan, open_reader, plan_slide
from wsi_minugan.pipeline.planning.slide_stain import stain_wish
from wsi_minugan.pipeline.results import SlideWork, finish_slide
from wsi_minugan.pipeline.stages import (
    analyse_block,
    merge_blocks,
    object_thresholds,
    prepare_store,
    write_block,
)
from wsi_minugan.slides.files import fingerprint
from wsi_minugan.slides.inputs import SlideInput, safe_name
from wsi_minugan.slides.reader import SlideReader

Progress = Callable[[int, int], None]


def analyze(
    slide: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Predictor = "default",
    mpp: float | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Find the mitoses and nuclei of one slide, and count them.

    The results are those of `wsi-minugan run`, file for file. For many slides use the command, which resumes
    after a power cut and uses all cores.

    Parameters
    ----------
    slide : str or path
        A whole-slide image.
    model : str, path or Predictor
        A model, as `load_model` takes or returns it.
    mpp : float, optional
        um/px of level 0. It replaces what the slide says.
    out : str or path, optional
        A new or empty folder to keep the results in. Without it they lie in a temporary folder, which goes
        with the result; `Result.save` keeps them.
    progress : callable, optional
        Takes the number of blocks done, and of all blocks.
    **options
        Fields of `RunSettings`, such as `nuclei=False`, `hpf_diameter_mm=0.55` or `device="cuda"`.

    Returns
    -------
    Result
        Mitoses, nuclei, masks and the count.

    Raises
    ------
    SlideError
        If the slide cannot be read, has no plausible resolution, or holds no tissue.
    SettingsError
        If an option is unknown or out of range.
    ModelError
        If the model's card does not have what an option asks for.
    OutputError
        If `out` is not empty, or cannot be written.

    Examples
    --------
    >>> result = analyze("a.svs")  # doctest: +SKIP
    >>> result.count.hotspot.mitoses  # doctest: +SKIP
    12
    """
    named = {} if isinstance(model, Predictor) else {"model": os.fspath(model)}
    settings, path = load_settings(None, {**named, **options}), Path(slide)
    folder = temporary_folder() if out is None else empty_folder(Path(out))
    reader = open_reader(path, settings)
    try:
        predictor = as_predictor(
            model,
            device=settings.device,
            precision=settings.precision,
            batch_size=settings.batch_size,
            threads=settings.threads,
        )
        settings = settings.model_copy(update={"precision": predictor.precision})
        work = SlideWork(settings, predictor.bundle, fingerprint(path, settings.stall_s))
        slide_input = SlideInput(safe_name(path.stem), path, mpp)
        card = predictor.bundle.card
        wish = stain_wish(card, settings.stain)
        plan = plan_slide(slide_input, reader, settings, card.mpp, wish, card.patches_across)
        _run_stages(replace(plan, key=work.fingerprint), reader, predictor, work, folder.path, progress)
    finally:
        reader.close()
    return Result(folder)


def _run_stages(
    plan: SlidePlan,
    reader: SlideReader,
    predictor: Predictor,
    work: SlideWork,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Run all stages of a slide in turn, as the workers of a batch do."""
    thresholds, nuclei = object_thresholds(work.bundle, work.settings), work.settings.nuclei
    prepare_store(plan, folder, nuclei)
    for done, index in enumerate(plan.order):
        if progress is not None:
            progress(done, len(plan.blocks))
        analyse_block(plan, index, reader, predictor, thresholds, folder, nuclei)
    merge_blocks(plan, thresholds, folder)
    for index in range(len(plan.blocks)):
        write_block(plan, index, folder, nuclei)
    finish_slide(plan, reader, work, folder)
    if progress is not None:
        progress(len(plan.blocks), len(plan.blocks))
