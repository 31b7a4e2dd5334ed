"""What models are asked with where they take texts or categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.signature import Tensor
from pipeline.trial import draw, read, write

TEXT = Tensor(name="text", dtype="str", shape=[None, 1], example=[1, 1])
KNOWN = TEXT.model_copy(update={"values": ["red", "blue"]})
KINDS = ("normal", "uniform", "zeros", "ones", "small", "large")


def asked(tensor: Tensor, kind: str, batch: int = 64) -> np.ndarray:
    return draw([tensor], batch=batch, kind=kind)[tensor.name]


def test_texts_are_words_and_at_the_edges_empty_of_other_scripts_and_long() -> None:
    ordinary = asked(TEXT, "normal")
    assert ordinary.dtype.kind == "U"
    assert ordinary.shape == (64, 1)
    assert len(np.unique(ordinary)) > 32
    assert (asked(TEXT, "zeros") == "").all()
    assert not any(one.isascii() for one in asked(TEXT, "small").flat)
    assert min(len(one) for one in asked(TEXT, "large").flat) > 400


def test_what_an_input_knows_is_asked_most_and_what_it_does_not_now_and_then() -> None:
    known = np.isin(asked(KNOWN, "normal"), KNOWN.values).mean()
    assert 0.5 < known < 1
    assert not np.isin(asked(KNOWN, "zeros"), KNOWN.values).any()


def test_an_input_that_takes_nothing_else_is_asked_nothing_else() -> None:
    closed = KNOWN.model_copy(update={"closed": True})
    assert all(np.isin(asked(closed, kind), closed.values).all() for kind in KINDS)


def test_numbers_that_are_categories_stay_numbers() -> None:
    decks = Tensor(name="deck", dtype="int64", shape=[None, 1], example=[1, 1], values=["1", "7"], closed=True)
    for kind in KINDS:
        drawn = asked(decks, kind)
        assert drawn.dtype == np.int64
        assert set(drawn.flat) <= {1, 7}


def test_texts_are_drawn_and_kept_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        write(str(tmp_path / name), {"text": asked(KNOWN, "uniform").astype(object)})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert (read(str(tmp_path / "one.npz"))["text"] == asked(KNOWN, "uniform")).all()
