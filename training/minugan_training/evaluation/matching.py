"""Detections to truth, one to one; and the radii that contests use."""

from __future__ import annotations

from wsi_minugan.counting.agreement import Matches, match

__all__ = ["ICPR_RADIUS_UM", "MIDOG_RADIUS_UM", "PAPER_WINDOW_PX", "Matches", "match"]

MIDOG_RADIUS_UM = 7.5
ICPR_RADIUS_UM = 5.0
PAPER_WINDOW_PX = 25
