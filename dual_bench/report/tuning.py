"""How much tuning each model had: a comparison is fair where every model could try as much as every other."""

from __future__ import annotations

import pandas as pd

from dual_bench.report.evidence import Evidence
from dual_bench.report.numbers import NOTHING, listing, plural
from dual_bench.report.table import Table


def table(evidence: Evidence) -> Table | None:
    """A row for each system and fold, those that were not tuned included; None where the run took no presets."""
    tuning = evidence.run.info.tuning
    if tuning is None:
        return None
    rows, shown = [], []
    folds = sorted({cell.fold for cell in evidence.run.cells})
    several = len(folds) > 1
    for system in evidence.systems:
        for fold in folds:
            found = tuning.systems.get(system, {}).get(fold)
            line = {"system": system, "fold": fold, "trials_allowed": tuning.trials}
            if found is None:
                nothing = {"loss_default": float("nan"), "loss_chosen": float("nan"), "settings": ""}
                rows.append({**line, "trials_spent": 0, **nothing})
                told = (NOTHING, NOTHING, "not tuned")
            else:
                losses = {"loss_default": found.default, "loss_chosen": found.best}
                rows.append({**line, "trials_spent": found.spent, **losses, "settings": found.settings})
                of = f" (trials of {found.of})" if found.of else ""
                told = (f"{found.default:.4f}", f"{found.best:.4f}", f"{found.settings or 'the default'}{of}")
            shown.append(
                {
                    "system": evidence.title(system),
                    **({"fold": fold} if several else {}),
                    "trials spent": str(found.spent if found else 0),
                    "trials allowed": str(tuning.trials),
                    **dict(zip(("loss, default", "loss, chosen", "settings chosen"), told, strict=True)),
                }
            )
    regimes = f"the regime {tuning.regimes[0]}" if len(tuning.regimes) == 1 else f"regimes {listing(tuning.regimes)}"
    notes = (
        f"Every model might try {plural(tuning.trials, 'setting')} in each fold, its default first; one that has fewer "
        f"to try spends fewer. Loss: on the validation part, in tuning, mean over {regimes}; no trial saw a test "
        "utterance of its fold.",
        "A variant of a model has the settings of its model, but those that the plan sets and those it has no use for.",
        *_other_training(evidence),
    )
    return Table("tuning", "How much tuning each model had", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def _other_training(evidence: Evidence) -> tuple[str, ...]:
    """What the run trains with otherwise than tuning did."""
    tuning, plan = evidence.run.info.tuning, evidence.run.info.plan
    assert tuning is not None
    others = [name for name, value in tuning.training.items() if plan["training"].get(name, value) != value]
    others += ["regimes"] if set(tuning.regimes) != set(plan["regimes"]) else []
    others += ["corruptions"] if tuning.corruptions and set(tuning.corruptions) != set(plan["corruptions"]) else []
    return (f"This run trains otherwise than tuning did: {listing(others)}.",) if others else ()


def sentence(evidence: Evidence) -> str:
    """For the methods, how settings were chosen; nothing where they were not."""
    tuning = evidence.run.info.tuning
    if tuning is None:
        return ""
    folds = {cell.fold for cell in evidence.run.cells}
    untuned = [evidence.title(s) for s in evidence.systems if folds - tuning.systems.get(s, {}).keys()]
    return (
        " The settings of models were tuned on validation parts, in each fold by itself, with at most "
        f"{plural(tuning.trials, 'trial')} for each model, its default the first (presets {tuning.digest[:12]})"
        f"{f'; not tuned, or not in every fold: {listing(untuned)}' if untuned else ''}."
    )
