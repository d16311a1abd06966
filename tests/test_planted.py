"""The method recovers planted truth, at small size: which module of DUAL carries motion, where only motion tells.

Encoders do not mix time, there are no words, and no alignment either: at this size the dynamic alignment with the
differences of a face that keeps still keeps SDM from learning the voice.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dual_bench import runner
from dual_bench.ablation import read_study
from dual_bench.report.evidence import gather
from dual_bench.store import read_run

STUDY = """
name = "planted"
question = "Which module carries what was planted?"
dataset = "synthetic:cues={cues},utterances=800"
metric = "accuracy"
margin = 0.05
baseline = "dual:time_mixing=off,text_path=none,static_alignment=off,dynamic_alignment=off,width=16,layers=1"
regimes = ["clean"]
corruptions = []
seeds = 2

[[variants]]
name = "SDM off"
change = {{ sdm = "off" }}

[[variants]]
name = "VDM off"
change = {{ vdm = "off" }}

[training]
learning_rate = 3e-3
batch_size = 32
patience = 6
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def verdicts(cues: str, folder: Path, cache: Path) -> tuple[dict[str, str], float]:
    """The verdict on each module, and the accuracy of the whole model."""
    (folder / "planted.toml").write_text(STUDY.format(cues=cues))
    plan, study = read_study(str(folder / "planted.toml"), {})
    runner.run(plan, Path(), cache, folder, folder / "run", "cpu", 1, study=study)
    evidence = gather(read_run(folder / "run"))
    whole = evidence.at(study.baseline, "clean", evidence.places[0]).value
    return {effect.comparison.name: effect.verdict for effect in evidence.effects}, whole


@pytest.mark.parametrize(
    ("cues", "carries"),
    [pytest.param("voice-motion", "SDM off", marks=pytest.mark.slow), ("face-motion", "VDM off")],
)
def test_where_only_motion_tells_the_module_that_sees_it_is_supported_and_the_other_is_not(
    cues: str, carries: str, tmp_path: Path, cache: Path
) -> None:
    found, whole = verdicts(cues, tmp_path, cache)
    assert whole > 0.8  # of .9 that a perfect perceiver has
    assert found[carries] == "supported"
    (other,) = found.keys() - {carries}
    assert found[other] in ("equivalent", "undecided")


@pytest.mark.slow
def test_where_only_level_tells_neither_module_is_found_to_matter(tmp_path: Path, cache: Path) -> None:
    found, whole = verdicts("static", tmp_path, cache)
    assert whole > 0.8
    assert set(found.values()) <= {"equivalent", "undecided"}
