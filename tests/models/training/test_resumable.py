"""A run that is cut off goes on from its checkpoint, and from no other file; nothing in a file is ever executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")

from torch.nn import Linear  # noqa: E402

from isthmus.models.progress import Report  # noqa: E402
from isthmus.models.training.resumable import (  # noqa: E402
    ResumableRun,
    Stateful,
    averaging,
    follow,
    learning_rate,
    prepare,
    read_checkpoint,
)
from isthmus.proto.errors import DataError  # noqa: E402


class Line(ResumableRun[Linear]):
    """Fits a line to random points; one step an epoch."""

    def __init__(self, epochs: int, *, seed: int = 1, outputs: int = 1, **identity: object) -> None:
        super().__init__(seed=seed, epochs=epochs, identity=identity)
        self.network, self.averaged = torch.nn.Linear(2, outputs), torch.nn.Linear(2, outputs)
        self.optimiser = torch.optim.Adam(self.network.parameters())
        self.begun = 0

    @property
    def state(self) -> dict[str, Stateful]:
        return {"network": self.network, "averaged": self.averaged, "optimiser": self.optimiser}

    def before_first_epoch(self, checkpoint: Path, report: Report) -> None:
        self.begun += 1

    def epoch(self, report: Report) -> str:
        prepare([self.optimiser], [0.1], self.epochs_done / self.epochs)
        noise = torch.from_numpy(self.rng.standard_normal((8, 2)).astype("float32"))
        torch.autograd.backward(self.network(noise + torch.rand(8, 2, generator=self.generator)).square().mean())
        self.optimiser.step()
        follow(self.averaged, self.network, 0.5)
        return f"loss of epoch {self.epochs_done}"


def silent(_: str) -> None:
    pass


def test_a_run_that_was_cut_off_ends_where_one_ends_that_was_not(tmp_path: Path) -> None:
    whole = Line(4).run(tmp_path / "whole.pt", silent)
    first = Line(4)
    said: list[str] = []
    for _ in range(2):
        first.epoch(silent)
        first.epochs_done += 1
    first.save(tmp_path / "cut.pt")
    second = Line(4)
    found = second.run(tmp_path / "cut.pt", said.append)
    assert torch.equal(found.weight, whole.weight)
    assert said[0] == "resumed after epoch 2 of 4"
    assert [line.partition(", ")[0] for line in said[1:]] == [
        "epoch 3 of 4: loss of epoch 2",
        "epoch 4 of 4: loss of epoch 3",
    ]
    assert (first.begun, second.begun) == (0, 0)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["cut.pt", "whole.pt"]


def test_a_run_without_a_checkpoint_begins_once(tmp_path: Path) -> None:
    run = Line(1)
    run.run(tmp_path / "new" / "state.pt", silent)
    assert run.begun == 1
    assert (tmp_path / "new" / "state.pt").is_file()


def test_the_seed_of_a_checkpoint_goes_on(tmp_path: Path) -> None:
    Line(1, seed=7).run(tmp_path / "state.pt", silent)
    run = Line(2, seed=1)
    run.run(tmp_path / "state.pt", silent)
    assert run.seed == 7


def test_a_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    Line(1, model="a", batch=8).save(tmp_path / "state.pt")
    with pytest.raises(DataError, match=r"state\.pt: a checkpoint of another run \(model differ\); name another, or"):
        Line(1, model="b", batch=8).load(tmp_path / "state.pt")
    with pytest.raises(DataError, match=r"another run \(model, views differ\)"):
        Line(1, model="b", views=8).load(tmp_path / "state.pt")
    with pytest.raises(DataError, match=r"state\.pt: a checkpoint of another architecture"):
        Line(1, outputs=3, model="a", batch=8).load(tmp_path / "state.pt")


class Bomb:
    """Pickled, it creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("as_torch", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not_run_it(as_torch: bool, tmp_path: Path) -> None:
    path, sign = tmp_path / "state.pt", tmp_path / "it ran"
    Line(1).save(path)
    state = {**torch.load(path, weights_only=True), "rng": Bomb(sign)}
    if as_torch:
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state["rng"]))
    with pytest.raises(DataError) as refused:
        Line(1).run(path, silent)
    assert not sign.exists()
    assert str(refused.value) == f"{path}: not a checkpoint, or a damaged one; delete it to begin anew"
    torch.load(path, weights_only=False) if as_torch else pickle.loads(path.read_bytes())
    assert sign.exists()  # the bomb was a real one


@pytest.mark.parametrize("missing", ["identity", "epochs_done", "seed", "averaged"])
def test_a_checkpoint_of_an_older_form_is_refused(missing: str, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    Line(1).save(path)
    state = torch.load(path, weights_only=True)
    state["teacher"] = state.pop(missing)
    torch.save(state, path)
    with pytest.raises(DataError, match=r"state\.pt: not a checkpoint of a training, or one of an older version"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(DataError, match=r"state\.pt: not a checkpoint of a training"):
        Line(1).run(path, silent)


def test_every_way_of_damage_is_one_clear_line(tmp_path: Path) -> None:
    Line(1).save(tmp_path / "whole.pt")
    whole, path = (tmp_path / "whole.pt").read_bytes(), tmp_path / "state.pt"
    for damaged in (b"", b"PK", b"not a checkpoint", whole[: len(whole) // 2], b"\x80\x02}q\x00.", b"\x80\x04K\x01."):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"^[^\n]*state\.pt: not a checkpoint[^\n]*$"):
            Line(1).run(path, silent)
        assert path.read_bytes() == damaged


def test_a_run_that_is_killed_while_saving_keeps_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run = tmp_path / "state.pt", Line(3)
    run.save(path)
    before = path.read_bytes()

    def killed(state: object, where: Path) -> None:
        where.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save(path)
    assert path.read_bytes() == before


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(p / 100, 1.0) for p in range(101)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < 0.1
    assert rates[-1] <= 0.011


def test_a_short_run_s_average_forgets_its_beginning() -> None:
    assert averaging(0.99, 10_000) == 0.99
    assert averaging(0.99, 50) ** 50 < 0.01
    assert averaging(0.99, 3) == averaging(0.99, 0) == 0.0
