"""Nuclei on images without nuclei labels, as a first model sees them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from minugan_training.data.index import Entry
from minugan_training.data.labels import BOUNDARY, IGNORE, MITOSES, NUCLEI, Sample
from minugan_training.evaluation.detect import score_image
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Experiment
from wsi_minugan.minugan.bundle import find_bundle, load_bundle
from wsi_minugan.minugan.predictor import Predictor

log = logging.getLogger(__name__)

SURE = 0.8
"""A pixel is taken as nucleus (or boundary) above this score, as neither below 1 - SURE; between them it stays unknown."""


def pool_for(experiment: Experiment, root: Path, entries: Sequence[Entry]) -> Pool:
    """Return the samples an experiment trains on, with the nuclei that its first model sees, if it has one.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The index.

    Returns
    -------
    Pool
        Images are read when they are needed.
    """
    fill = PseudoNuclei(experiment.pseudo_nuclei).fill if experiment.pseudo_nuclei else None
    return Pool(root, entries, fill)


class PseudoNuclei:
    """Fills in nuclei that nobody labelled.

    Parameters
    ----------
    bundle : str
        Name or folder of the first model.
    """

    def __init__(self, bundle: str) -> None:
        # Mitoses are not asked for. One patch at a time: a crop is one patch, and a batch is always computed whole.
        self._predictor = Predictor(
            load_bundle(find_bundle(bundle)).without_test_time_augmentation(), "cpu", batch_size=1
        )
        log.info(
            "Nuclei that nobody labelled are those of %s; reading the images takes some minutes.", bundle
        )

    def fill(self, sample: Sample) -> Sample:
        """Return a sample whose unknown nucleus and boundary pixels are labelled where the model is sure.

        What is to be ignored (paint, a crop's black border) stays unknown: pixels whose mitoses are, on images where others' are known.

        Parameters
        ----------
        sample : Sample
            Image and labels.

        Returns
        -------
        Sample
            A new one.
        """
        scores = score_image(self._predictor, sample.image)
        labels = sample.labels.copy()
        told = labels[..., MITOSES] != IGNORE
        seen = told if told.any() else ~told
        for channel, of in ((0, NUCLEI), (2, BOUNDARY)):
            unknown = (labels[..., of] == IGNORE) & seen
            high, low = scores[channel] > 255 * SURE, scores[channel] < 255 * (1 - SURE)
            labels[..., of] = np.where(unknown & high, 1, np.where(unknown & low, 0, labels[..., of]))
        return replace(sample, labels=labels)
