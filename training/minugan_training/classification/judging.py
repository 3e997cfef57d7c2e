"""What a trained second stage says of candidates, and how well it ranks them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minugan_training.classification.candidates import DARK, MITOSIS, Candidates
from minugan_training.evaluation.metrics import average_precision
from minugan_training.fitting.checkpoint import load_weights
from wsi_minugan.minugan.classifier import CandidateClassifier, kind_of, new_classifier
from wsi_minugan.minugan.networks.ensemble import mirrored_views
from wsi_minugan.minugan.scoring import network_input
from wsi_minugan.minugan.second_stage import crop_around


def averaged(width: int, weights: dict[str, Tensor]) -> CandidateClassifier:
    """Return a classifier with given weights, of the architecture that they are of, in eval mode.

    Parameters
    ----------
    width : int
        Of a residual network.
    weights : dict of str to Tensor
        By the network's own names.

    Returns
    -------
    CandidateClassifier
        On the CPU.
    """
    network = new_classifier(kind_of(weights), width)
    load_weights(network, weights)
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def classifier_inputs(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what the classifier sees of candidates' surroundings; ``(n, 128, 128, 3)`` in, ``(n, 64, 64, 3)`` out.

    Parameters
    ----------
    crops : ndarray of uint8, shape (n, 128, 128, 3)
        RGB.

    Returns
    -------
    ndarray of uint8, shape (n, 64, 64, 3)
        RGB.
    """
    middle = crops.shape[1] / 2
    return np.stack([crop_around(c, (middle, middle)) for c in crops])


@torch.inference_mode()
def logits_of(
    network: CandidateClassifier,
    inputs: NDArray[np.uint8],
    *,
    mirrored: bool = False,
    densities: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Return the logit of each input, reckoned where the network is.

    Parameters
    ----------
    network : CandidateClassifier
        In eval mode.
    inputs : ndarray of uint8, shape (n, 64, 64, 3)
        RGB.
    mirrored : bool
        Whether it is the mean over four mirrored views, as in use, or that of one view.
    densities : sequence of float, optional
        Factor of the optical densities in each mirrored view.

    Returns
    -------
    ndarray of float, shape (n,)
        Logits.
    """
    out, device = np.zeros(len(inputs)), next(network.parameters()).device
    for start in range(0, len(inputs), 128):
        part = torch.from_numpy(np.ascontiguousarray(inputs[start : start + 128])).to(device)
        views = mirrored_views(part, densities) if mirrored else [network_input(part)]
        out[start : start + 128] = torch.stack([network(v) for v in views]).mean(0).cpu().numpy()
    return out


def by_patient(logits: NDArray[np.float64], of: Candidates) -> dict[str, float]:
    """Return the average precision among each patient's candidates; crops of AMi-Br count as one patient's.

    Dark nuclei, which the first stage does not propose, are left out.

    Parameters
    ----------
    logits : ndarray of float, shape (n,)
        Of each candidate.
    of : Candidates
        The candidates.

    Returns
    -------
    dict of str to float
        0 to 1, for those who have a mitosis.
    """
    out = {}
    patient = np.where(of.dataset == "amibr", "amibr", of.patient)
    for p in np.unique(patient):
        here = (patient == p) & (of.kind != DARK)
        hit = of.kind[here] == MITOSIS
        if hit.any():
            out[str(p)] = average_precision(logits[here], hit, int(hit.sum()))
    return out
