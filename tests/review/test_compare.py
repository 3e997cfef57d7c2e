"""What a reviewer did: kept, moved, reclassified, removed, added; by UUID, and by place where that was lost."""

import uuid

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from wsi_minugan.outputs.objects import Marked
from wsi_minugan.review.compare import SAME_PLACE_UM, Change, compare, match_places, tally

MPP = 0.25


def mitosis(name: str, x_px: float, y_px: float, label: str = "Mitosis") -> Marked:
    own = str(uuid.uuid5(uuid.NAMESPACE_OID, name)) if name else ""
    return Marked(own, label, shapely.box(x_px - 10, y_px - 10, x_px + 10, y_px + 10))


ORIGINAL = [mitosis(name, 100.0 * k, 50.0) for k, name in enumerate("abcde", start=1)]


def kinds(corrected: list[Marked]) -> list[str]:
    return [c.kind for c in compare(ORIGINAL, corrected, MPP)]


def test_what_is_as_it_was_is_kept_in_any_order() -> None:
    assert kinds(ORIGINAL[::-1]) == ["kept"] * 5


def test_what_is_gone_is_removed_and_what_is_new_is_added() -> None:
    corrected = [*ORIGINAL[:3], mitosis("new", 900, 900)]
    changes = compare(ORIGINAL, corrected, MPP)
    assert [c.kind for c in changes] == ["kept"] * 3 + ["removed"] * 2 + ["added"]
    assert changes[-1] == Change("added", None, 3)
    assert tally(changes) == {"kept": 3, "moved": 0, "reclassified": 0, "removed": 2, "added": 1}


def test_the_same_uuid_elsewhere_is_moved_however_far() -> None:
    changes = compare(ORIGINAL, [mitosis("a", 5000, 50), *ORIGINAL[1:]], MPP)
    assert changes[0].kind == "moved"
    assert changes[0].distance_um == 4900 * MPP


def test_an_edge_changed_with_a_brush_does_not_move_a_mitosis() -> None:
    assert kinds([mitosis("a", 103, 50), *ORIGINAL[1:]]) == ["kept"] * 5


def test_another_class_is_reclassified_whatever_its_uuid() -> None:
    for name in ("a", ""):
        assert kinds([mitosis(name, 100, 50, "Not mitosis"), *ORIGINAL[1:]])[0] == "reclassified"


def test_a_class_that_was_taken_away_leaves_a_mitosis() -> None:
    assert kinds([mitosis("a", 100, 50, ""), *ORIGINAL[1:]])[0] == "kept"


def test_a_lost_uuid_is_found_again_by_its_place() -> None:
    lost = [mitosis("", 100.0 * k + 8, 50) for k in range(1, 6)]
    assert kinds(lost) == ["moved"] * 5  # 8 px are 2 um
    far = SAME_PLACE_UM / MPP + 1
    assert kinds([mitosis("", 100 + far, 50), *ORIGINAL[1:]]) == ["removed", *["kept"] * 4, "added"]


def test_of_copies_with_one_uuid_the_nearest_is_it_and_the_others_are_added() -> None:
    copies = [mitosis("a", 700, 700), mitosis("a", 100, 50), *ORIGINAL[1:]]
    changes = compare(ORIGINAL, copies, MPP)
    assert (changes[0].kind, changes[0].corrected) == ("kept", 1)
    assert changes[-1] == Change("added", None, 0)


def test_other_objects_of_the_file_are_no_change() -> None:
    others = [
        mitosis("t", 300, 300, "Tumor"),
        mitosis("h", 100, 50, "Hot spot"),
        mitosis("l", 1, 1, "Mitosis-like"),
    ]
    assert kinds([*ORIGINAL, *others]) == ["kept"] * 5


def test_pairs_of_places_are_one_to_one_and_the_most_there_can_be() -> None:
    # The nearest pair first (1 with 0) would leave the others without a partner.
    before, after = np.array([[0.0, 0], [10, 0]]), np.array([[9.0, 0], [19, 0]])
    assert match_places(before, after, 9.5) == [(0, 0), (1, 1)]
    assert match_places(before, after[:0], 9.5) == []


POINTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12, unique=True)


@given(POINTS, POINTS, st.integers(1, 30))
def test_pairs_never_share_a_place_nor_lie_too_far_apart(
    before: list[tuple[int, int]], after: list[tuple[int, int]], reach: int
) -> None:
    a, b = np.array(before, float).reshape(-1, 2), np.array(after, float).reshape(-1, 2)
    pairs = match_places(a, b, reach)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(np.hypot(*(a[i] - b[j])) <= reach for i, j in pairs)
    mirrored = [(i, j) for j, i in match_places(b, a, reach)]
    assert len(mirrored) == len(pairs)
