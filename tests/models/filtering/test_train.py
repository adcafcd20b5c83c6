"""The neural filter from footage to the agent: a lamp that is on or off, learnt in seconds, and thresholds by their rule."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")
pytest.importorskip("litert_torch", reason="litert-torch is not installed; exporting needs it")

from isthmus.device.capture.sources import Picture, Source  # noqa: E402
from isthmus.device.config import AgentConfig  # noqa: E402
from isthmus.device.neural_filter import NeuralFilter  # noqa: E402
from isthmus.device.run import answer_all, open_device  # noqa: E402
from isthmus.models import bundle, filters  # noqa: E402
from isthmus.models.filtering import train  # noqa: E402
from isthmus.models.filtering.footage import Footage  # noqa: E402
from isthmus.proto.errors import BundleError, DataError  # noqa: E402
from isthmus.proto.record import FrameRecord  # noqa: E402
from isthmus.proto.vocabulary import AnswerSource  # noqa: E402

SIZE = train.SIZE
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
"""Of the converter's own making."""


def yard(n: int = 200, *, on_s: int = 10, seed: int = 0) -> Footage:
    """A noisy yard whose lamp is on for `on_s` frames, then off for as many."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 120, (n, SIZE, SIZE, 3)).astype(np.uint8)
    on = (np.arange(n) // on_s) % 2 == 1
    images[on, 20:32, 40:52] = 250
    return Footage("yard", images, on, np.ones(n, bool))


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def trained() -> train.TrainedFilter:
    torch.set_num_threads(1)
    return train.train([yard()], seed=1, report=silent, steps=60)


@pytest.fixture(scope="module")
def made(trained: train.TrainedFilter, tmp_path_factory: pytest.TempPathFactory) -> filters.Filter:
    target = tmp_path_factory.mktemp("filters") / "yard"
    return train.write(target, trained, name="yard", made_by="a test", images=yard().images[:4])


def test_what_it_has_not_seen_is_told_apart(trained: train.TrainedFilter) -> None:
    assert trained.score.interesting == trained.score.empty == 30
    assert (trained.score.auc, trained.score.lost, trained.score.dismissed) == (1.0, 0.0, 1.0)
    assert (trained.score.visits, trained.score.visits_lost) == (3, 0)


def test_the_device_decides_as_torch_does(made: filters.Filter, trained: train.TrainedFilter) -> None:
    signs = bundle.load("signs").manifest
    neural_filter, fresh = NeuralFilter(made, signs), yard(40, seed=9)
    for image, interesting in zip(fresh.images, fresh.interesting, strict=True):
        dismissed, guess = neural_filter(image)
        assert dismissed is not bool(interesting)
        if guess is not None:
            assert signs.labels[guess.label] == "nothing"
            assert 0.5 < guess.confidence <= 1


def test_the_agent_answers_by_its_filter_and_says_so(made: filters.Filter) -> None:
    class Yard(Source):
        name = "yard"

        def __init__(self) -> None:
            self._pictures: Iterator[Picture] = (Picture(str(i), image) for i, image in enumerate(yard(40).images))

        def read(self) -> Picture | None:
            return next(self._pictures, None)

        def close(self) -> None:
            """Nothing is held open."""

    rows: list[FrameRecord] = []
    device = open_device(AgentConfig(deadline_s=2.0, fps=50, filter=str(made.folder)))
    asyncio.run(asyncio.wait_for(answer_all(device, Yard(), rows.append), 60))
    by_filter = {row.frame_id for row in rows if row.source is AnswerSource.FILTER}
    assert by_filter == set(np.flatnonzero(~yard(40).interesting).tolist())
    assert all(
        row.answer == "nothing" and row.bytes_up == 0 and row.head_s > 0 for row in rows if row.frame_id in by_filter
    )


def test_a_damaged_filter_is_refused_by_name(made: filters.Filter, tmp_path: Path) -> None:
    for name in (filters.FILE, filters.NETWORK):
        (tmp_path / name).write_bytes((made.folder / name).read_bytes())
    with (tmp_path / filters.NETWORK).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"filter\.tflite: sha256"):
        filters.load(tmp_path)
    (tmp_path / filters.FILE).write_text((made.folder / filters.FILE).read_text() + "\nsurprise = 1\n")
    with pytest.raises(BundleError, match="surprise"):
        filters.load(tmp_path)
    with pytest.raises(BundleError, match="isthmus models filter"):
        filters.load(tmp_path / "elsewhere")


@pytest.mark.parametrize(("first", "said"), [(True, "shows nothing"), (False, "anything of interest")])
def test_footage_of_one_kind_is_refused(first: bool, said: str) -> None:
    seen = yard()
    with pytest.raises(DataError, match=f"yard: no frame that .*{said}"):
        train.train([Footage("yard", seen.images, np.full(200, first), seen.certain)], seed=1, report=silent)


SCORES = st.lists(st.tuples(st.integers(-5, 5).map(float), st.booleans()), min_size=1, max_size=40)


@given(SCORES)
@settings(deadline=None, max_examples=50)
def test_the_area_is_the_share_of_pairs_in_order(rows: list[tuple[float, bool]]) -> None:
    scores, positive = np.array([s for s, _ in rows]), np.array([p for _, p in rows])
    above, below = scores[positive][:, None], scores[~positive][None]
    expected = float(((above > below) + 0.5 * (above == below)).mean()) if above.size and below.size else None
    assert train.area_under_curve(scores, positive) == (expected if expected is None else pytest.approx(expected))


@given(SCORES.filter(lambda rows: any(p for _, p in rows)))
@settings(deadline=None, max_examples=50)
def test_a_threshold_keeps_what_it_must(rows: list[tuple[float, bool]]) -> None:
    scores, positive = np.array([s for s, _ in rows]), np.array([p for _, p in rows])
    threshold = train.chosen(scores, positive)
    assert (scores[positive] < threshold).mean() <= train.LOST
    kept = scores[positive].min()
    assert (scores[~positive & (scores < kept)] < threshold).all()
