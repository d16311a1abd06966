"""Look-up by name. A part of dual-bench is one file and one line here; nothing is imported until it is asked for.

Of all kinds but metrics, ``package.module:attribute`` names a part of the user's own, and an installed package can give
its parts names by entry points (``Catalog.plugins``). A name may carry settings: ``dual:sdm=off,width=32``.

To load a part of the user's own runs its code. What a file mentions is loaded only where the command line names it too
(``check_code``), and what a record of a run mentions is not loaded at all (``Catalog.known``).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import os
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from dual_bench.limits import toml
from dual_bench.shown import shortened
from dual_bench.types import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

Settings = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class Entry:
    """Where a part is (``package.module:attribute``), and what it is in a few words."""

    target: str
    summary: str


@dataclass(frozen=True)
class Catalog:
    """The parts of one kind, by name: ``entries`` come with dual-bench."""

    kind: str
    entries: Mapping[str, Entry]
    group: str = ""
    """The group of entry points by which installed packages add parts; empty where they cannot."""
    own: bool = True
    """Whether ``package.module:attribute`` names a part of the user's own."""

    @cached_property
    def plugins(self) -> Mapping[str, Entry]:
        """The parts that installed packages add. UserError names the package where one takes a name that is taken.

        Looked for only where a name is not in ``entries``, or all names are wanted: no package can change what a name
        of dual-bench means.
        """
        from importlib import metadata

        found: dict[str, Entry] = {}
        brought: dict[str, str] = dict.fromkeys(self.entries, "dual-bench")
        for point in metadata.entry_points(group=self.group) if self.group else ():
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"
            if point.name in brought:
                raise UserError(
                    f"package {package} brings a {self.kind} '{point.name}', a name that {brought[point.name]} has "
                    f"already; rename its entry point in {self.group}, or uninstall it"
                )
            brought[point.name] = package
            found[point.name] = Entry(point.value, f"from the package {package}")
        return found

    @property
    def parts(self) -> Mapping[str, Entry]:
        """All that has a name: ``entries``, then ``plugins``."""
        return {**self.entries, **self.plugins}

    def load(self, name: str) -> Any:
        """The part called ``name``; UserError with the nearest name where there is none."""
        if name in self.entries:
            return _resolve(self.entries[name].target)
        if not (name in self.plugins or self.is_own(name)):
            raise UserError(f"unknown {self.kind} '{name}'{did_you_mean(name, self.parts)}")
        if self.is_own(name) and (here := os.getcwd()) not in sys.path:
            # from now on, as worker processes inherit the path; last, so that no file here hides an installed package
            sys.path.append(here)
        try:
            return _resolve(self._target(name))
        except Exception as error:  # of a file of the user's own, anything may come
            origin = f" {self.plugins[name].summary}" if name in self.plugins else ""
            near: list[str] = []
            if isinstance(error, AttributeError) and error.name:
                near = difflib.get_close_matches(error.name, dir(error.obj), n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            reason = str(error) or type(error).__name__
            raise UserError(f"{self.kind} '{name}'{origin} cannot be loaded: {reason}{hint}") from error

    def is_own(self, name: str) -> bool:
        """Whether a name stands for code of the user's own, ``package.module:attribute``."""
        return self.own and ":" in name and name not in self.parts

    def known(self, name: str) -> Any:
        """The part called ``name``, None where nobody who installed dual-bench or a package of parts has one."""
        return self.load(name) if name in self.parts else None

    def source(self, name: str) -> str:
        """sha256 of the file that a loaded part from elsewhere is in; empty for one that comes with dual-bench."""
        file = None if name in self.entries else sys.modules[self._target(name).partition(":")[0]].__file__
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""

    def _target(self, name: str) -> str:
        return self.plugins[name].target if name in self.plugins else name


def _resolve(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return attrgetter(attribute)(importlib.import_module(module))


def digest_of(value: object) -> str:
    """sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest valid name, or all of them.

    >>> did_you_mean("word-dorp", ["word-drop", "utterance-drop"])
    "; did you mean 'word-drop'?"
    >>> did_you_mean("xyz", ["dual", "concat"])
    '; known: concat, dual'
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"


def parse_spec(spec: str) -> tuple[str, dict[str, bool | int | float | str]]:
    """Split ``name:key=value,…`` into the name and its settings; ``on``/``off`` are booleans.

    >>> parse_spec("dual:sdm=off,width=32")
    ('dual', {'sdm': False, 'width': 32})
    >>> parse_spec("my.module:build")
    ('my.module:build', {})
    """
    name, colon, tail = spec.rpartition(":")
    if not colon or "=" not in tail:
        return spec, {}
    settings = {}
    for item in tail.split(","):
        key, equals, value = item.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise UserError(f"'{spec}': expected name:key=value,key=value, found '{item}'")
        settings[key.strip()] = _scalar(value.strip())
    return name, settings


def _scalar(text: str) -> bool | int | float | str:
    if text in ("on", "off"):
        return text == "on"
    try:
        value = toml(f"value = {text}", text)["value"]
    except UserError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _fields(kind: type[BaseModel], place: Sequence[int | str]) -> Iterable[str]:
    """The names that are valid at a place inside a record."""
    from pydantic import BaseModel

    for part in place[:-1]:
        if isinstance(part, str) and part in kind.model_fields:
            inner = kind.model_fields[part].annotation
            kind = next(
                (k for k in (inner, *get_args(inner)) if isinstance(k, type) and issubclass(k, BaseModel)), kind
            )
    return kind.model_fields


S = TypeVar("S", bound="BaseModel")


def validated(kind: type[S], values: Mapping[str, Any], what: str) -> S:
    """``values`` as settings of ``kind``; UserError names the first wrong key, and the nearest one where unknown."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            problem = f"unknown setting '{where}'{did_you_mean(str(first['loc'][-1]), _fields(kind, first['loc']))}"
        elif first["type"] == "missing":
            problem = f"the setting '{where}' is missing"
        else:
            problem = f"{where}: {first['msg'].removeprefix('Value error, ')}"
            if where and first["type"] != "value_error":
                problem += f" (found {shortened(repr(first['input']), 200)})"
        raise UserError(f"{what}: {problem.removeprefix(': ')}") from None


def split_specs(text: str) -> list[str]:
    """A comma-separated list of specs, whose settings are comma-separated too.

    >>> split_specs("dual,dual:sdm=off,vdm=off,text-only")
    ['dual', 'dual:sdm=off,vdm=off', 'text-only']
    """
    specs: list[str] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        if specs and "=" in item and ":" not in item:
            specs[-1] += f",{item}"
        else:
            specs.append(item)
    return specs


def format_settings(settings: Settings) -> str:
    """The settings of a spec in one canonical order: ``sdm=off,width=32``.

    >>> format_settings({"width": 32, "sdm": False})
    'sdm=off,width=32'
    """
    shown = {True: "on", False: "off"}
    return ",".join(f"{k}={shown[v] if isinstance(v, bool) else v}" for k, v in sorted(settings.items()))


def joined_spec(name: str, settings: Settings) -> str:
    """The spec of a part with settings; UserError where it would be read as that of another part.

    >>> joined_spec("dual", {"width": 32, "sdm": False})
    'dual:sdm=off,width=32'
    """
    spec = f"{name}:{format_settings(settings)}" if settings else name
    if parse_spec(spec)[0] != name:
        raise UserError(f"'{spec}': a setting of '{name}' has a ':' in it, which no spec can hold; leave it out")
    return spec


DATASETS = Catalog(
    "corpus",
    {
        "synthetic": Entry("dual_bench.datasets.synthetic:load", "generated; its exact Bayes ceiling is known"),
        "manifest": Entry("dual_bench.datasets.manifest:load", "your own: a CSV beside .npz or .npy features"),
        "extracted": Entry("dual_bench.datasets.extracted:load", "your own: a folder that `data extract` wrote"),
        "mosi-752": Entry("dual_bench.datasets.mosi:load", "CMU-MOSI, the 752 clips whose features saw no label"),
        "ravdess": Entry("dual_bench.datasets.ravdess:load", "RAVDESS, 8 acted emotions; the words tell nothing"),
        "composite": Entry(
            "dual_bench.datasets.composite:load", "RAVDESS voices and faces with MELD lines (artificial)"
        ),
    },
    "dual_bench.corpora",
)

MODELS = Catalog(
    "model",
    {
        "dual": Entry("dual_bench.models.dual:SPEC", "voice and face first, text only at the decoder"),
        "ef-lstm": Entry("dual_bench.models.ef_lstm:SPEC", "an LSTM that reads all three at every step"),
        "lf-dnn": Entry("dual_bench.models.lf_dnn:SPEC", "a deep network for each modality, joined late"),
        "tfn": Entry("dual_bench.models.tfn:SPEC", "tensor fusion: every product of features of all three"),
        "lmf": Entry("dual_bench.models.lmf:SPEC", "tensor fusion of low rank"),
        "mult": Entry("dual_bench.models.mult:SPEC", "each modality attends to each of the others"),
        "misa": Entry("dual_bench.models.misa:SPEC", "what modalities share, and what is each one's own"),
        "self-mm": Entry("dual_bench.models.self_mm:SPEC", "unimodal tasks too, with labels it makes itself"),
        "tfr-net": Entry("dual_bench.models.tfr_net:SPEC", "trains with holes, restores what is missing"),
        "emt-dlfr": Entry("dual_bench.models.emt_dlfr:SPEC", "the same by a context of three tokens, at two levels"),
        "lnln": Entry("dual_bench.models.lnln:SPEC", "words rule, and are corrected where they are lost"),
        "concat": Entry("dual_bench.models.fusion:CONCAT", "pooled features of all three, an MLP"),
        "linear": Entry("dual_bench.models.linear:SPEC", "pooled features, one linear layer"),
        "constant": Entry("dual_bench.models.constant:SPEC", "the floor: reads nothing, says what is most frequent"),
        "audio-vision": Entry("dual_bench.models.unimodal:AUDIO_VISION", "voice and face, late fusion by an MLP"),
        "audio-text": Entry("dual_bench.models.unimodal:AUDIO_TEXT", "voice and words, late fusion by an MLP"),
        "vision-text": Entry("dual_bench.models.unimodal:VISION_TEXT", "face and words, late fusion by an MLP"),
        "text-only": Entry("dual_bench.models.unimodal:TEXT_ONLY", "a transformer block over the words"),
        "audio-only": Entry("dual_bench.models.unimodal:AUDIO_ONLY", "a transformer block over the voice"),
        "vision-only": Entry("dual_bench.models.unimodal:VISION_ONLY", "a transformer block over the face"),
    },
    "dual_bench.models",
)

CORRUPTIONS = Catalog(
    "corruption",
    {
        "typo": Entry("dual_bench.corruptions.characters:TYPO", "a letter becomes its neighbour on the keyboard"),
        "char-delete": Entry("dual_bench.corruptions.characters:DELETE", "characters are lost"),
        "char-insert": Entry("dual_bench.corruptions.characters:INSERT", "random letters come in between"),
        "char-swap": Entry("dual_bench.corruptions.characters:SWAP", "neighbouring letters change places"),
        "ocr": Entry("dual_bench.corruptions.characters:OCR", "letters that a scanner mistakes for each other"),
        "case-punctuation": Entry("dual_bench.corruptions.characters:STRIPPED", "no capitals, no punctuation"),
        "homoglyph": Entry("dual_bench.corruptions.characters:HOMOGLYPH", "letters of other scripts that look alike"),
        "word-drop": Entry("dual_bench.corruptions.words:DROP", "each word is lost with probability rate"),
        "word-mask": Entry("dual_bench.corruptions.words:MASK", "words become the mask token"),
        "word-swap": Entry("dual_bench.corruptions.words:SWAP", "neighbouring words change places"),
        "word-shuffle": Entry("dual_bench.corruptions.words:SHUFFLE", "windows of four words are shuffled"),
        "stutter": Entry("dual_bench.corruptions.words:STUTTER", "words are said twice"),
        "filler": Entry("dual_bench.corruptions.words:FILLER", "um, uh, you know"),
        "word-replace": Entry("dual_bench.corruptions.words:REPLACE", "words become random words of the training text"),
        "truncation": Entry("dual_bench.corruptions.words:TRUNCATION", "the end of the sentence has not come yet"),
        "block-drop": Entry("dual_bench.corruptions.words:BLOCK", "one run of words is lost"),
        "asr-model": Entry("dual_bench.corruptions.speech:ASR_MODEL", "errors like those of a speech recogniser"),
        "asr-loop": Entry("dual_bench.corruptions.recogniser:ASR_LOOP", "noise on the sound, then a real recogniser"),
        "utterance-drop": Entry(
            "dual_bench.corruptions.missing:UTTERANCE_DROP", "all words are lost, with probability rate"
        ),
        "mismatch": Entry("dual_bench.corruptions.missing:MISMATCH", "the words of another utterance"),
        "contradiction": Entry("dual_bench.corruptions.missing:CONTRADICTION", "the words of another label"),
        "token-zero": Entry("dual_bench.corruptions.tokens:ZERO", "token embeddings become zero"),
        "token-unk": Entry("dual_bench.corruptions.tokens:UNKNOWN", "token embeddings become that of [UNK]"),
        "token-noise": Entry("dual_bench.corruptions.tokens:NOISE", "Gaussian noise on the token embeddings"),
        "worst-case": Entry("dual_bench.corruptions.worst:WORST_CASE", "the words whose loss hurts this model most"),
    },
    "dual_bench.corruptions",
)

METRICS = Catalog(
    "metric",
    {
        "accuracy": Entry("dual_bench.metrics:ACCURACY", "share of utterances with the right class"),
        "uar": Entry("dual_bench.metrics:UAR", "unweighted average recall (balanced accuracy)"),
        "weighted-f1": Entry("dual_bench.metrics:WEIGHTED_F1", "F1 of each class, weighted by its true count"),
        "macro-f1": Entry("dual_bench.metrics:MACRO_F1", "plain mean of the F1 of each class"),
        "brier": Entry("dual_bench.confidence:BRIER", "squared distance of the probabilities from the truth"),
        "ece": Entry("dual_bench.confidence:ECE", "expected calibration error: how far confidence is from accuracy"),
        "aurc": Entry("dual_bench.confidence:AURC", "area under the risk-coverage curve: is it sure where it is right"),
        "mae": Entry("dual_bench.metrics:MAE", "mean absolute error"),
        "pearson-r": Entry("dual_bench.metrics:PEARSON_R", "Pearson correlation of prediction and truth"),
        "acc2-has0": Entry("dual_bench.metrics:ACC2_HAS0", "negative against non-negative, all utterances"),
        "acc2-non0": Entry("dual_bench.metrics:ACC2_NON0", "negative against positive, truth 0 left out"),
        "acc7": Entry("dual_bench.metrics:ACC7", "both rounded to the whole numbers -3..3 and equal"),
    },
    own=False,  # a report loads them by what a record says
)

LAYOUTS = Catalog(
    "layout",
    {
        "meld": Entry("dual_bench.datasets.meld:LAYOUT", "train_sent_emo.csv and clips dia0_utt0.mp4, as MELD.Raw has"),
        "iemocap": Entry(
            "dual_bench.datasets.iemocap:LAYOUT", "Session1/dialog/EmoEvaluation, as IEMOCAP_full_release has"
        ),
        "mmsa": Entry("dual_bench.datasets.mmsa:LAYOUT", "a .pkl of features of MOSI, MOSEI or SIMS, as MMSA has them"),
        "folder": Entry("dual_bench.datasets.folder:LAYOUT", "your own: a CSV with a column file, audio or video"),
    },
    "dual_bench.layouts",
)

ENCODERS = Catalog(
    "encoder",
    {
        "log-mel": Entry("dual_bench.features.audio:SPEC", "audio: mel-band power, needs no weights (default)"),
        "wav2vec2": Entry("dual_bench.features.wav2vec2:SPEC", "audio: a layer of wav2vec 2.0 base"),
        "egemaps": Entry("dual_bench.features.egemaps:SPEC", "audio: eGeMAPS by openSMILE, needs no weights"),
        "frame-dct": Entry("dual_bench.features.vision:SPEC", "vision: low frequencies of grey frames (default)"),
        "timm": Entry("dual_bench.features.timm_frames:SPEC", "vision: ResNet50, or any other network of timm"),
        "sentence-transformers": Entry(
            "dual_bench.features.text:SPEC", "text: tokens of all-MiniLM-L6-v2 (default), or of another model"
        ),
    },
    "dual_bench.encoders",
)

CATALOGS = {
    "corpora": DATASETS,
    "models": MODELS,
    "corruptions": CORRUPTIONS,
    "metrics": METRICS,
    "encoders": ENCODERS,
    "layouts": LAYOUTS,
}


def is_folder(name: str) -> bool:
    """Whether a corpus is named by its folder."""
    try:
        return name not in DATASETS.entries and Path(name).is_dir()
    except OSError:  # a name that is too long for one
        return False


def corpus_spec(spec: str) -> tuple[str, Settings]:
    """The part that loads the corpus ``spec``, and its settings: a catalogue name with settings, or the path of a
    manifest CSV or of a folder that ``data extract`` wrote."""
    name, settings = parse_spec(spec)
    if is_folder(name):
        return "extracted", {"path": name}
    if not settings and name.endswith(".csv"):
        return "manifest", {"path": name}
    return name, settings


def parts(fields: Mapping[str, Any]) -> Iterator[tuple[Catalog, str]]:
    """Each part that the fields of a study, or of the plan in a record, name, valid fields or not, by the very name
    that its catalogue is asked for when it is loaded."""
    for field, catalog in (("dataset", DATASETS), ("models", MODELS), ("baseline", MODELS), ("encoders", ENCODERS)):
        split = corpus_spec if catalog is DATASETS else parse_spec
        yield from ((catalog, split(spec)[0]) for spec in _texts(fields.get(field)))
    yield from ((CORRUPTIONS, name) for name in _texts(fields.get("corruptions")))  # which have no settings


def own_parts(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and name of each of them that is code of the user's own."""
    yield from ((catalog.kind, name) for catalog, name in parts(fields) if catalog.is_own(name))


def check_code(
    fields: Mapping[str, Any], where: str, permitted: Collection[str], given: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """UserError where ``fields``, read from the file that ``where`` names, mention code that is not ``permitted``, nor
    named by the fields that the command line has ``given``: a file that somebody was sent runs nothing unless the
    command line names it too."""
    allowed = {*permitted, *(name for _, name in own_parts(given))}
    for kind, name in own_parts(fields):
        if name not in allowed:
            raise UserError(
                f"{where} mentions {kind} '{name}', code that runs only where the command line names it too; if you "
                f"trust it, add --code {shlex.quote(name)}"
            )


def _texts(value: object) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
