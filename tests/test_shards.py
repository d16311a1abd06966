"""Parts of a plan for sites that know nothing of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import Made, write
from planned import cells_of, plan_of, plans

from dual_bench.plan import Cell, Plan
from dual_bench.shards import Shard, Training, done, trainings
from dual_bench.store import RunFolder
from dual_bench.types import UserError


def parts_of(groups: Sequence[Training], count: int) -> list[list[Training]]:
    return [Shard(number, count).of(groups) for number in range(1, count + 1)]


def uneven(parts: Iterable[Sequence[Training]], kind: Callable[[Cell], object]) -> int:
    """The largest difference between two parts in how many trainings of a kind they have."""
    counts = [Counter(kind(group[0]) for group in part) for part in parts]
    return max(max(c[k] for c in counts) - min(c[k] for c in counts) for k in set().union(*counts))


@given(plans())
def test_cells_of_one_key_and_no_others_share_a_training(asked: tuple[Plan, tuple[str, ...]]) -> None:
    wanted = cells_of(*asked)
    groups = trainings(wanted)
    assert sorted(c.digest for group in groups for c in group) == sorted(c.digest for c in wanted)
    assert [len({cell.training for cell in group}) for group in groups] == [1] * len(groups)
    assert len({group[0].training for group in groups}) == len(groups)
    assert [group[0].seed for group in groups] == sorted(group[0].seed for group in groups)


@given(plans(), st.integers(1, 9))
def test_every_training_is_whole_and_in_exactly_one_shard(asked: tuple[Plan, tuple[str, ...]], count: int) -> None:
    groups = trainings(cells_of(*asked))
    found = [group for part in parts_of(groups, count) for group in part]
    assert sorted(map(id, found)) == sorted(map(id, groups))


@given(plans(), st.integers(1, 9))
def test_shards_are_balanced_in_all_by_system_and_by_system_and_regime(
    asked: tuple[Plan, tuple[str, ...]], count: int
) -> None:
    parts = parts_of(trainings(cells_of(*asked)), count)
    assert uneven(parts, lambda cell: None) <= 1
    assert uneven(parts, lambda cell: cell.variant.system) <= 1
    assert uneven(parts, lambda cell: (cell.variant.system, cell.reads.regime)) <= 1


def test_one_training_of_each_kind_leaves_no_shard_without_a_regime() -> None:
    plan = plan_of(["dual", "text-only", "concat", "linear"], regimes=("clean", "mixed"), seeds=1)
    parts = parts_of(trainings(cells_of(plan)), 2)
    assert [len(part) for part in parts] == [4, 4]
    assert uneven(parts, lambda cell: cell.reads.regime) == 0


def test_the_whole_is_the_only_shard_of_one() -> None:
    groups = trainings(cells_of(plan_of(["dual", "linear"], seeds=2)))
    assert Shard(1, 1).of(groups) == groups


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1.0/3", "٢/٣"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--shard: expected i/n, part i of n"):
        Shard.parse(text)


@given(st.integers(1, 999), st.integers(0, 999))
def test_a_shard_is_read_as_it_is_written(number: int, more: int) -> None:
    shard = Shard(number, number + more)
    assert Shard.parse(str(shard)) == shard


def test_done_are_cells_that_are_whole_and_asked_for_and_no_others(tmp_path: Path) -> None:
    wanted = cells_of(plan_of(["dual"], seeds=2))
    assert done(RunFolder(tmp_path / "nothing yet"), wanted) == set()
    folder = write(tmp_path / "run", Made(models=("dual",), regimes=("clean",)))
    assert done(folder, wanted) == set()
    whole, damaged, *_ = folder.info().cells
    folder.rows_file(damaged).write_bytes(b"?")
    asked = [*wanted, *(replace(wanted[0], digest=digest) for digest in (whole, damaged))]
    assert done(folder, asked) == {whole}
