"""What a run leaves behind, by column and by field: the schema of its tables and records."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 5
OLDEST_SCHEMA = 2
"""The first that can still be read: since then columns and fields were only added."""

PREDICTION_COLUMNS = {
    "cell": "digest of the trained model",
    "model": "name in the catalogue",
    "variant": "settings that differ from the model's own, empty where none does",
    "regime": "what the model saw in training: clean, matched (this corruption at this rate), mixed, modality-dropout",
    "seed": "training seed, a whole number",
    "fold": "which division of the corpus; 'official' where there is one",
    "corruption": "name in the catalogue, 'clean', 'transcript:NAME', or 'any-text': the worst that any text could do; "
    "with clean text 'absent:audio+text': without these modalities, 'permuted:audio+text': with those of one other "
    "utterance, or 'additive': without what text and the other modalities say only together",
    "rate": "nominal rate in [0, 1]",
    "draw": "which noise draw, shared by all models",
    "severity": "1 to 5 where the rate was chosen for its word error rate on training text, else 0",
    "utterance": "id",
    "cluster": "dialogue, session, video or actor",
    "truth": "index of the class, or the value",
    "wer": "realised word error rate of this text against the reference; NaN where the reference has no word",
    "cer": "realised character error rate, likewise",
    "dropped": "share of the reference's words that are gone, likewise",
    "cosine": "cosine distance between the mean token embeddings of reference and text; 1 where one has no token",
    "text": "what the model read, where the corruption depends on the model; else null, and in texts.parquet",
    "certified": "under 'any-text': whether no text whatever can change the predicted class; else null",
}
"""Columns of a prediction table; ``score_0`` … ``score_{K-1}`` follow: class probabilities, or one value."""

TEXT_COLUMNS = {
    "corruption": PREDICTION_COLUMNS["corruption"],
    "rate": PREDICTION_COLUMNS["rate"],
    "draw": PREDICTION_COLUMNS["draw"],
    "severity": PREDICTION_COLUMNS["severity"],
    "utterance": "id",
    "text": "what the model reads",
    "wer": PREDICTION_COLUMNS["wer"],
    "cer": PREDICTION_COLUMNS["cer"],
    "dropped": PREDICTION_COLUMNS["dropped"],
    "cosine": PREDICTION_COLUMNS["cosine"],
    "words": "words in the reference",
    "errors": "substituted, deleted and inserted words",
}


MEASURED = ("wer", "cer", "dropped", "cosine")
"""What is measured on every text, by the names of the columns."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusInfo(_Record):
    """The corpus as a report needs it."""

    name: str
    task: Literal["classification", "regression"]
    classes: tuple[str, ...]
    low: float | None
    high: float | None
    counts: dict[str, int]
    """Utterances that train, choose and test (summed over folds where there are several)."""
    folds: int
    clusters: int
    """Clusters in the test parts."""
    fingerprint: str
    licence: str
    notes: tuple[str, ...]
    transcripts: tuple[str, ...]


class CeilingPoint(_Record):
    """Exact Bayes accuracy of a perfect perceiver of ``modalities`` ("audio+vision+text") at one condition."""

    modalities: str
    corruption: str
    rate: float
    accuracy: float


class SeverityPoint(_Record):
    """What severity 1..5 of a corruption means on this corpus: the rate whose WER on the training text is nearest."""

    corruption: str
    severity: int
    target: float
    """The word error rate asked for."""
    rate: float
    wer: float
    """What the rate makes of the training text."""
    reached: bool
    """Whether that is the target; if not, it is the most (or the least) that the corruption can do."""


class NoiseInfo(_Record):
    """What a corruption of the user's own says of itself (``types.Corruption``)."""

    rate_is: str
    nested: bool
    tells_label: bool


class Provenance(_Record):
    """All that a result depends on besides its plan, and when it was made."""

    dual_bench: str
    commit: str | None
    dirty: bool | None
    python: str
    platform: str
    packages: dict[str, str]
    device: str
    threads: int
    jobs: int
    engine: str = "local"
    """Who trained: processes of one machine, or a cluster."""
    command: str
    started: str
    ended: str | None = None
    seconds: float | None = None
    """Of this sitting."""
    packing: str = ""
    """What was measured to choose how many seeds are trained stacked, where the plan left that open."""
    processor: str = ""
    """Its model, and which of its instructions torch uses."""
    accelerator: str = ""
    """The model of the card, where there is one at work."""
    arithmetic: dict[str, str] = {}
    """Variables of the environment that change how libraries compute, where they are set."""
    format: int | None = None
    """``plan.FORMAT_VERSION``: which numbers a plan gives."""
    sources: dict[str, str] = {}
    """sha256 of the file of each part that does not come with dual-bench, by its name in the plan; not of what that
    file imports."""
    sittings: int = 1
    """How often the run was begun or taken up again; the rest tells of the last time."""


Expected = Literal["loss", "gain", "none"]
"""What a comparison is expected to show: worse, better, or no difference that matters."""


class Term(_Record):
    """A system, trained in a regime, and the weight that its metric has in a comparison."""

    weight: float
    system: str
    regime: str


class ComparisonInfo(_Record):
    """A weighted sum of systems that is 0 where what is compared makes no difference."""

    name: str
    kind: Literal["variant", "main effect", "interaction"]
    regime: str
    """In what the systems were trained, for people."""
    expected: Expected
    terms: tuple[Term, ...]


class StudyInfo(_Record):
    """An ablation as it was written down before the run."""

    where: str
    """Where the study file was found."""
    digest: str
    """sha256 of the file."""
    replaced: dict[str, str]
    """Fields of the file that flags of the command line replaced."""
    margin: float
    """The smallest difference that matters, in the unit of the metric."""
    primary: tuple[str, ...]
    """The quantities that the hypotheses are about."""
    baseline: str
    """The system that variants are compared with."""
    titles: dict[str, str]
    """What each system is called in figures."""
    comparisons: tuple[ComparisonInfo, ...]


class SourceInfo(_Record):
    """Predictions that were made elsewhere, and read from a table."""

    file: str
    """As it was named on the command line."""
    sha256: str
    probabilities: bool
    """Whether the scores of every row are class probabilities, so that there is a confidence to judge."""
    notes: tuple[str, ...] = ()
    """What a reader of the report should know of the file."""


class TunedInfo(_Record):
    """How the settings of one system were chosen in one fold."""

    spent: int
    """Distinct settings that were tried, the default among them; those of its model where a variant has none of its
    own."""
    settings: str
    """Those that it got and that differ from its own: ``dropout=0.3,width=64``."""
    default: float
    """Validation loss of the default settings: the mean over the regimes of tuning."""
    best: float
    """The same of the settings chosen."""
    of: str = ""
    """The system that was tuned, where that is the model of this one and not it itself."""


class TuningInfo(_Record):
    """The preset that a run took settings from."""

    digest: str
    """Of what was asked in tuning, and of its trials."""
    trials: int
    """Distinct settings that each model might try in each fold."""
    regimes: tuple[str, ...]
    """In what models were trained to choose."""
    corruptions: dict[str, float]
    """What noise the regime ``mixed`` met there, and the largest rate of each."""
    training: dict[str, Any]
    """How."""
    systems: dict[str, dict[str, TunedInfo]]
    """By system and fold; a system that is not here was not tuned."""


class RunInfo(_Record):
    """``run.json``."""

    schema_version: int
    status: Literal["running", "complete", "failed", "partial"]
    """``partial``: this sitting did its part of the plan, and other cells are not here."""
    name: str
    digest: str
    plan: dict[str, Any]
    corpus: CorpusInfo
    cells: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...]
    """Digests of all cells of the plan, done or not."""
    floors: dict[str, float | None]
    """Each metric of the constant prediction that is best on the training part; None: undefined."""
    ceilings: tuple[CeilingPoint, ...]
    severities: tuple[SeverityPoint, ...] = ()
    own_noise: dict[str, NoiseInfo] = {}
    """Of corruptions of the user's own, by name: a report loads none of them."""
    encoders: dict[str, str]
    provenance: Provenance
    study: StudyInfo | None = None
    """What an ablation asks; None of a comparison of models."""
    source: SourceInfo | None = None
    """Where the predictions were read from, if dual-bench did not make them: then no file holds this record."""
    tuning: TuningInfo | None = None
    """How much tuning each model had; None where every model has the settings of the plan."""
    found: int = 0
    """How many cells were taken from other runs."""
    problem: str | None = None


class FailedCell(_Record):
    """``cells/<digest>.failed.json``: why a cell could not be made. It is tried again when the run goes on."""

    digest: str
    model: str
    variant: str
    regime: str
    seed: int
    fold: str
    corruption: str = ""
    """As in ``CellInfo``."""
    rate: float = 0.0
    error: str
    """Its kind and what it says, in one line."""
    traceback: str
    when: str
    host: str
    code: str
    """Versions of dual-bench and torch, and the commit, that failed."""


class CellInfo(_Record):
    """``cells/<digest>.json``."""

    digest: str
    status: Literal["done"]
    model: str
    variant: str
    regime: str
    seed: int
    fold: str
    corruption: str = ""
    """What a model of the regime matched was trained on, ``clean`` included; of other regimes nothing."""
    rate: float = 0.0
    parameters: int
    radius: float | None = None
    """How far any text can move a logit, or the value; None where the model does not bound it."""
    best_epoch: int
    history: tuple[dict[str, float], ...]
    """For each epoch: each part of the training loss by name, and the validation loss."""
    seconds_fit: float
    seconds_predict: float
    device: str
    threads: int
    processor: str = ""
    """Of the machine that trained it: a run may have several, and take cells of others."""
    code: str
    """Versions of dual-bench and torch, and the commit, that made it."""
    rows: int
    sha256: str
    weights: str | None = None
    """sha256 of the file of its weights, where they were kept."""
