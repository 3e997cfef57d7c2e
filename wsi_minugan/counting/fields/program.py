"""Choosing sets that share no point, so that they hold the most: an integer program (HiGHS, through `scipy.optimize`)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_matrix, vstack

from wsi_minugan.counting.fields.coverage import BoolArray, FloatArray, Sets

_MOST_WHOLE = 4000
"""Most columns of an integer program: of more, HiGHS does not end in time."""
_NODES = 400
"""Most nodes of one integer program. With it, and not a clock, the search ends, so that results are the same on any machine."""
_PATIENCE = 20
"""Where a machine is busy, the solver's clock may run so many times as long as its work takes."""
_INFEASIBLE = 2
"""HiGHS's word, as SciPy gives it."""


@dataclass
class _Cuts:
    """Choices of sets that have no place side by side; each a list of arrays of points."""

    rows: list[list[NDArray[np.int64]]] = field(default_factory=list)

    def of(self, members: BoolArray) -> csr_matrix:
        """Return the rows' coefficients for columns of these members, shape ``(rows, m)``."""
        rows = [np.any([members[:, s].all(axis=1) for s in row], axis=0) for row in self.rows]
        return csr_matrix(np.array(rows, float).reshape(len(rows), len(members)))

    @property
    def most(self) -> list[int]:
        """Right-hand sides."""
        return [len(row) - 1 for row in self.rows]


class Program:
    """Choosing sets that share no point, by columns that are added while they can better the relaxation.

    Parameters
    ----------
    sets : Sets
        The sets of points to choose from.
    discs : int
        Greatest number of sets to choose.
    end_s : float
        Time at which to stop, on the clock of `time.thread_time`, in seconds.
    """

    def __init__(self, sets: Sets, discs: int, end_s: float) -> None:
        self._sets, self._discs, self._end_s = sets, discs, end_s
        self._cuts = _Cuts()
        self._columns = self._first_columns()

    def forbid(self, clash: list[NDArray[np.int64]]) -> None:
        """Take away a choice of sets, and all choices of larger ones.

        Parameters
        ----------
        clash : list of ndarray of int, shape (k,)
            Indices of points of each of the sets that found no place side by side.
        """
        self._cuts.rows.append(clash)

    def solve(self) -> tuple[NDArray[np.int64] | None, int]:
        """Return the chosen sets (None where there was no time), and how many points no choice exceeds.

        Returns
        -------
        chosen : ndarray of int, shape (k,), or None
            Indices of the sets; None where no time was left.
        bound : int
            Number of points that no choice exceeds.
        """
        relaxed = self._relaxed()
        if relaxed is None:
            return None, int(self._sets.weights[np.argsort(-self._sets.weights)[: self._discs]].sum())
        value, x, gain = relaxed
        if np.all((x < 1e-6) | (x > 1 - 1e-6)):
            return self._columns[x > 0.5], int(value + 1e-6)
        return self._whole(value, gain)

    def _whole(self, value: float, gain: FloatArray) -> tuple[NDArray[np.int64] | None, int]:
        """Look for a whole choice as good as the bound, then for one point less, and so on."""
        target = bound = int(value + 1e-6)
        while self._left_s() > 0:
            # A set whose gain is lower can be in no choice that reaches the target.
            columns = np.flatnonzero(value + gain >= target - 1e-6)
            chosen, possible = self._reaching(target, columns)
            if chosen is not None:
                return chosen, bound
            if possible:  # not found in time: something a little worse may be
                target -= max(1, target // 40)
            else:
                target, bound = target - 1, min(bound, target - 1)
        return None, bound

    def _reaching(self, target: int, columns: NDArray[np.int64]) -> tuple[NDArray[np.int64] | None, bool]:
        """Return a choice among columns that holds so many points, if one was found, and whether there may be one."""
        if len(columns) > _MOST_WHOLE:
            return None, True
        matrix, most = self._rows(columns)
        weights = self._sets.weights[columns]
        # Of choices that hold as many, discs with more room find places side by side. All rooms together count less than a point.
        room = self._sets.room(columns) * (0.9 / self._discs)
        solved = milp(
            -(weights + room),
            integrality=1,
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(matrix, -np.inf, most),
                LinearConstraint(csr_matrix(weights), target - 0.5, np.inf),
            ],
            options={
                "node_limit": _NODES,
                "time_limit": _PATIENCE * max(0.1, self._left_s() / 2),
                # What reaches the target is good enough, whatever its room.
                "mip_rel_gap": 1 / max(1, target),
            },
        )
        if solved.x is not None:
            return columns[solved.x > 0.5], True
        return None, solved.status != _INFEASIBLE

    def _first_columns(self) -> NDArray[np.int64]:
        """Return the largest sets of each point."""
        order = np.argsort(-self._sets.weights, kind="stable")
        members = self._sets.members[order]
        rank = np.cumsum(members, axis=0, dtype=np.int32)
        return np.sort(order[(members & (rank <= 10)).any(axis=1)])

    def _relaxed(self) -> tuple[float, FloatArray, FloatArray] | None:
        """Solve without whole numbers; returns the value, the columns' shares, and all columns' gains (0 or less)."""
        while self._left_s() > 0:
            matrix, most = self._rows(self._columns)
            solved = linprog(
                -self._sets.weights[self._columns], A_ub=matrix, b_ub=most, bounds=(0, 1), method="highs",
                options={"time_limit": _PATIENCE * max(0.1, self._left_s())},
            )  # fmt: skip
            if solved.status != 0:
                return None
            duals = -solved.ineqlin.marginals
            gain = self._gains(duals)
            outside = np.ones(len(gain), bool)
            outside[self._columns] = False
            better = np.flatnonzero((gain > 1e-7) & outside)
            if len(better) == 0:
                return float(-solved.fun), solved.x, np.minimum(0.0, gain)
            best = better[np.argsort(-gain[better])[:1500]]
            self._columns = np.sort(np.concatenate([self._columns, best]))
        return None

    def _gains(self, duals: FloatArray) -> FloatArray:
        """Return what each set is worth above the prices of what it takes."""
        members, n = self._sets.members, self._sets.members.shape[1]
        prices = members @ duals[:n] + duals[-1]
        if self._cuts.rows:
            prices = prices + self._cuts.of(members).T @ duals[n:-1]
        return np.asarray(self._sets.weights - prices, np.float64)

    def _rows(self, columns: NDArray[np.int64]) -> tuple[csr_matrix, FloatArray]:
        """Return coefficients and right-hand sides: each point once, cuts, number of discs."""
        members = self._sets.members[columns]
        rows = [csr_matrix(members.T.astype(float))]
        if self._cuts.rows:
            rows.append(self._cuts.of(members))
        rows.append(csr_matrix(np.ones((1, len(columns)))))
        most = [1.0] * members.shape[1] + [float(m) for m in self._cuts.most] + [float(self._discs)]
        return vstack(rows, format="csr"), np.array(most)

    def _left_s(self) -> float:
        return self._end_s - time.thread_time()
