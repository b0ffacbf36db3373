"""Structured schemas of the root configs: types, limits and one line of help per key; needs no Hydra."""

# ruff: noqa: RUF009 - the calls make dataclass fields
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

MISSING = "???"  # OmegaConf's mark of a mandatory value
METRICS = (
    "accuracy",
    "accuracy_fp32",
    "perplexity",
    "perplexity_fp32",
    "proxy_score",
    "latency_ms",
    "ttft_ms",
    "token_ms",
    "kv_cache_kib",
    "size_kib",
    "memory_kib",
    "energy_mj",
    "macs",
    "params",
)
PROXIES = (
    *("params", "macs", "synflow", "naswot"),
    *("jacob_cov", "snip", "grad_norm", "dss"),
    *("expressivity", "progressivity", "trainability"),
    *("zico", "swap", "meco"),
    "combined",
)
RULES = "knee, fastest_within_<points>, best_under_<ms>ms"


def _key(default: Any, text: str, **checks: Any) -> Any:
    """Return a field with its help and its checks: ``least``, ``above``, ``choices``, ``own``, ``rule``, ``name``.

    With ``own`` the class of a user's own, a dotted name, may stand beside the choices.
    """
    metadata = {"help": text, **checks}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _group(text: str) -> Any:
    return dataclasses.field(default=MISSING, metadata={"help": text, "group": True})


@dataclass
class ObjectiveConfig:
    """One axis of the front; the key above it is the metric."""

    direction: str = _key(MISSING, "maximize or minimize", choices=("maximize", "minimize"))
    unit: str = _key("", "unit for tables and plots; empty for a share")
    bound: float | None = _key(None, "worst value that is feasible")
    reference: float | None = _key(None, "of the hypervolume; null: from space and device, or the bound")


@dataclass
class SamplerConfig:
    """What proposes the next candidate."""

    name: str = _key(MISSING, "name of the sampler")
    options: dict[str, Any] = _key(dict, "keyword arguments of the sampler besides the seed")


@dataclass
class ExecutorConfig:
    """Where candidates are evaluated."""

    kind: str = _key(MISSING, "spawned or in_process", choices=("spawned", "in_process"))
    workers: int = _key(1, "candidates under way at a time", least=1)
    memory_limit_mib: int | None = _key(4096, "address space that a candidate may add, MiB; null is no limit", least=64)
    timeout_s: float = _key(600.0, "seconds for one candidate", above=0)


@dataclass
class LimitsConfig:
    """Upper limits that need no training; a candidate beyond one is not trained."""

    macs: int | None = _key(None, "multiply-accumulates of one sample", least=1)
    params: int | None = _key(None, "stored values", least=1)
    size_kib: float | None = _key(None, "size of the quantized file, KiB", above=0)
    latency_ms: float | None = _key(None, "latency of the quantized model, ms", above=0)
    memory_kib: float | None = _key(None, "peak memory, KiB", above=0)
    ttft_ms: float | None = _key(None, "of a language model, time to the first token, ms", above=0)
    token_ms: float | None = _key(None, "of a language model, time of one more token, ms", above=0)
    kv_cache_kib: float | None = _key(None, "of a language model, keys and values of a full context, KiB", above=0)


@dataclass
class HalvingConfig:
    """Successive halving: a population is thinned after some epochs, and what is kept trains on."""

    rungs: list[int] = _key([], "epochs after which the population is thinned, such as [2,6]; empty for no halving")
    population: int = _key(9, "candidates that are compared with each other", least=2)
    keep: float = _key(0.34, "share that goes on from each rung", above=0)


@dataclass
class ShippedFilesConfig:
    """What the exported folder holds beside the ONNX files."""

    native: bool | None = _key(None, "model.nasq too, the native runtime's program; null: where runtime=native")


@dataclass
class PlanConfig:
    """How thoroughly ``nas plan`` looks ahead."""

    samples: int = _key(1000, "architectures to draw and to lower", least=10)
    trial: bool = _key(True, "evaluate one candidate at each fidelity, for the estimate of the time")


@dataclass
class ReplayConfig:
    """A table that answers in the place of training and timing; null table is a real search."""

    table: str | None = _key(None, "Parquet file with a row per architecture; null is a real search")
    accuracy: str | None = _key(None, "column to maximise")
    costs: list[str] = _key([], "columns to minimise, known beforehand")
    low_fidelity: str | None = _key(None, "column of the accuracy after a short training, or null")
    low_fidelity_cost: float = _key(0.06, "of a short training, as a share of a full one", above=0)
    limits: dict[str, float] = _key(dict, "column to the largest value allowed, written +replay.limits.COLUMN=8")
    genes: list[str] = _key([], "columns that make the architecture; empty: arch_str, else all columns of words")


@dataclass
class BoundsConfig:
    """Bounds under which a finished search is decided again; null keeps the search's own."""

    accuracy: float | None = _key(None, "least accuracy, 0 to 1", least=0)
    latency_ms: float | None = _key(None, "largest latency, ms", above=0)
    size_kib: float | None = _key(None, "largest file, KiB", above=0)
    memory_kib: float | None = _key(None, "largest peak memory, KiB", above=0)
    energy_mj: float | None = _key(None, "largest energy, mJ", above=0)
    perplexity: float | None = _key(None, "largest perplexity", above=0)
    ttft_ms: float | None = _key(None, "longest time to the first token, ms", above=0)
    token_ms: float | None = _key(None, "longest time of one more token, ms", above=0)
    kv_cache_kib: float | None = _key(None, "largest cache of keys and values, KiB", above=0)


_NONE_DROPPED: dict[str, float | None] = dict.fromkeys(PROXIES)
_RULE_HELP = f"which member ships: {RULES}"
_FOLDER_HELP = "folder of the searches, relative to where you are"
_OUTPUT = {"choices": ("text", "json")}
_PROGRESS = {"choices": ("auto", "live", "plain", "none")}


@dataclass
class SearchConfig:
    """Keys of ``nas search``."""

    space: Any = _group("search space")
    data: Any = _group("data set")
    accuracy: Any = _group("how accuracy is estimated")
    cost: Any = _group("how latency, memory and energy are had")
    runtime: Any = _group("runtime that is timed and shipped")
    device: Any = _group("target device")
    devices: dict[str, Any] = _key(dict, "several devices in place of device: [local,rpi4], or {NAME: device, ...}")
    costs: dict[str, Any] = _key(dict, "of several devices: {NAME: predicted} where another cost holds than cost=")
    objective: dict[str, ObjectiveConfig] = _group("axes of the front")
    sampler: SamplerConfig = _group("what proposes candidates")
    executor: ExecutorConfig = _group("where candidates are evaluated")
    tracking: Any = _group("where searches are shown")
    limits: LimitsConfig = _key(LimitsConfig, "upper limits that need no training: macs, params, size_kib, ...")
    halving: HalvingConfig = _key(HalvingConfig, "thin populations early: rungs, population, keep")
    drop_worst: dict[str, float | None] = _key(_NONE_DROPPED, "zero-cost score to the share of the worst not trained")
    replay: ReplayConfig = _key(ReplayConfig, "replays a search on a table: table, accuracy, costs, low_fidelity, ...")
    budget: int = _key(40, "candidates to evaluate", least=1)
    hours: float | None = _key(None, "wall clock after which no trial is started", above=0)
    seed: int = _key(0, "of sampling, weights and training", least=0)
    seeds: int | None = _key(None, "of a replay: how many, from seed on", least=1)
    study: str | None = _key(None, "name; null makes one from space, data and the config's hash", name=True)
    resume: str | None = _key(None, "name or folder of a study to go on with, under its own config")
    start_from: str | None = _key(None, "name or folder of a study whose front is evaluated first, with these settings")
    folder: str = _key("runs", _FOLDER_HELP)
    storage: str | None = _key(None, "Optuna storage; null is SQLite in the study's folder, else postgresql://...")
    rule: str = _key("knee", _RULE_HELP, rule=True)
    accuracy_floor: float | None = _key(None, "accuracy from which on the fastest candidate is a metric", least=0)
    energy: str | None = _key(None, "null, measured (needs a counter) or modelled", choices=("measured", "modelled"))
    proxies: list[str] = _key(list(PROXIES[:4]), "zero-cost scores noted per candidate", choices=PROXIES, own=True)
    calibration_images: int = _key(128, "training images that calibrate the quantizer", least=1)
    baselines: list[Any] = _key(list, "ready models beside the candidates: [model.onnx, my_net.MyNet, {model: ...}]")
    keep: str = _key("front", "whose model files stay: front or all", choices=("front", "all"))
    export: ShippedFilesConfig = _key(ShippedFilesConfig, "what is exported beside the ONNX files: native")
    plan: PlanConfig = _key(PlanConfig, "for nas plan: samples, trial")
    progress: str = _key("auto", "auto, live, plain or none", **_PROGRESS)
    output: str = _key("text", "text, or json: the last line is one JSON object", **_OUTPUT)


@dataclass
class FrontConfig:
    """Keys of ``nas front``."""

    study: str = _key(MISSING, "name or folder of a finished search")
    folder: str = _key("runs", _FOLDER_HELP)
    objective: Any = dataclasses.field(
        default=None, metadata={"help": "other axes than the search's own", "group": True}
    )
    bounds: BoundsConfig = _key(BoundsConfig, "bounds to decide under: accuracy, latency_ms, size_kib, ...")
    rule: str = _key("knee", _RULE_HELP, rule=True)
    output: str = _key("text", "text, or json: the last line is one JSON object", **_OUTPUT)


@dataclass
class ExportConfig:
    """Keys of ``nas export``."""

    study: str = _key(MISSING, "name or folder of a search")
    folder: str = _key("runs", _FOLDER_HELP)
    trial: int | None = _key(None, "number of the trial to export; null leaves it to the rule", least=0)
    target: str | None = _key(
        None, "of a search for several devices, the one to export for; null: each, or with trial= the first"
    )
    rule: str = _key("knee", _RULE_HELP, rule=True)
    to: str | None = _key(None, "folder to write; null is export/ in the study's folder")
    data_path: str | None = _key(None, "where the data lies now, if it moved since the search")
    native: bool | None = _key(None, "model.nasq too; null: as the search said by export.native")
    output: str = _key("text", "text, or json: the last line is one JSON object", **_OUTPUT)


@dataclass
class ProfileConfig:
    """Keys of ``nas profile``."""

    model: str = _key(MISSING, "ONNX file")
    runtime: Any = _group("runtime that is timed")
    device: Any = _group("device, one that can be reached")
    cost: Any = _group("settings of the timing")
    runs: int = _key(50, "runs behind each operator's median", least=1)
    latency: bool = _key(True, "also time the whole model, in a process of its own")
    against: str | None = _key(None, "another runtime to compare with, such as onnxruntime with runtime=native")
    inputs: int = _key(100, "with against, random inputs whose outputs are compared", least=1)
    save: str | None = _key(None, "file for the JSON; null is MODEL.profile.json beside the model")
    top: int = _key(20, "operators shown; all are saved", least=1)
    output: str = _key("text", "text, or json: the last line is one JSON object", **_OUTPUT)


@dataclass
class DevicesConfig:
    """Keys of ``nas devices``."""

    device: Any = _group("show this device only; all of them unless named")
    runtime: Any = _group("runtime whose version is shown")
    measure: bool = _key(True, "measure the peaks of one core, about a second the first time")
    output: str = _key("text", "text, or json: the last line is one JSON object", **_OUTPUT)


@dataclass
class ScoreLatencyConfig:
    """Keys of ``nas score-latency``."""

    scorer: Any = _group("cost models that are fitted and scored")
    table: str = _key(MISSING, "CSV or Parquet file, a row per architecture")
    encoding: str = _key(MISSING, "written space=; whose architectures: nasbench201, fbnet, hat or hw_gpt_bench")
    target: str = _key(MISSING, "column to predict; a+b predicts the sum of two columns")
    train: int = _key(900, "measured rows to learn from", least=3)
    seeds: int = _key(5, "splits to average over, numbered from 0", least=1)
    latency: str | None = _key(None, "column of the measured latency, where the target is an energy")
    transfer_from: list[str] = _key([], "columns of devices known already; train rows of the target are chosen then")
    output: str = _key("text", "text: a table before the last line; json: that line alone", **_OUTPUT)


@dataclass
class FitDataConfig:
    """What the timed networks read; nothing is loaded, since untrained networks learn nothing."""

    resolutions: list[int] = _key([8, 12, 16, 24, 32], "sides of the pictures, pixels")
    channels: list[int] = _key([1, 3], "colour channels, each drawn alike")
    classes: int = _key(10, "classes", least=2)
    tasks: list[str] = _key(
        ["image_classification", "language_model"],
        "what the networks are for; a space is timed at those that it serves",
        choices=("image_classification", "text_classification", "language_model"),
    )
    lengths: list[int] = _key([16, 24, 32], "tokens of the texts")
    contexts: list[int] = _key([64, 128, 256], "tokens that a language model can look back on")
    vocabulary: int = _key(2048, "tokens that texts are made of", least=2)


@dataclass
class FitConfig:
    """Keys of ``nas fit``."""

    space: Any = _group("spaces whose networks are timed; a,b takes both")
    runtime: Any = _group("runtimes that are timed; a,b takes both")
    device: Any = _group("device, one that can be reached")
    cost: Any = _group("settings of the timing")
    fitter: Any = _group("cost models that are fitted and scored")
    data: FitDataConfig = _key(FitDataConfig, "what the networks read")
    minutes: float = _key(10.0, "wall clock of timing and fitting together", above=0)
    networks: int | None = _key(None, "timed at most; null leaves it to the minutes", least=20)
    rounds: int = _key(8, "blocks of runs of each network", least=5)
    batch: int = _key(32, "networks timed in turns in one process", least=1)
    tries: int = _key(1, "how often a disturbed batch is redone, over cost.timing.tries", least=1)
    warmup_s: float = _key(0.01, "seconds of warming up, over cost.timing.warmup_s", above=0)
    seed: int = _key(0, "of networks, weights, and of who is held out", least=0)
    folder: str = _key("runs/latency_models", "where fitted models are kept")
    name: str | None = _key(None, "folder of this one in there; null: from device, spaces and runtimes", name=True)
    output: str = _key("text", "text, or json: the last line is one JSON object", **_OUTPUT)


@dataclass
class PredictConfig:
    """Keys of ``nas predict``."""

    file: str = _key(MISSING, "ONNX file, float or quantized")
    runtime: Any = _group("runtime that would run it")
    device: Any = _group("device that would run it; it need not be in reach")
    cost: Any = _group("its model predicts where nothing was fitted for the device")
    model: str | None = _key(None, "folder of a fitted model; null: the device's newest in folder")
    folder: str = _key("runs/latency_models", "where nas fit keeps fitted models")
    top: int = _key(20, "kernels shown; json has them all", least=1)
    output: str = _key("text", "text, or json: the last line is one JSON object", **_OUTPUT)


@dataclass
class NewConfig:
    """Keys of ``nas new``."""

    kind: str = _key(MISSING, "space, proxy, runtime or device", choices=("space", "proxy", "runtime", "device"))
    name: str = _key(MISSING, "of the module and of the config; small letters, digits and _")
    to: str = _key(".", "folder to write into, which then is your --config-dir")
    output: str = _key("text", "text, or json: the last line is one JSON object", **_OUTPUT)


ROOTS: dict[str, type] = {
    "search": SearchConfig,
    "plan": SearchConfig,
    "front": FrontConfig,
    "profile": ProfileConfig,
    "export": ExportConfig,
    "devices": DevicesConfig,
    "score-latency": ScoreLatencyConfig,
    "fit": FitConfig,
    "predict": PredictConfig,
    "new": NewConfig,
}


def groups(verb: str) -> dict[str, str]:
    """Return the groups that ``verb`` offers with a line of help each."""
    found = {f.name: f.metadata["help"] for f in dataclasses.fields(ROOTS[verb]) if "group" in f.metadata}
    return {**found, "experiment": "a whole setting: groups and keys at once"} if ROOTS[verb] is SearchConfig else found


def keys(verb: str) -> dict[str, tuple[Any, str]]:
    """Return the root keys of ``verb`` that are no groups: name to (default, help)."""
    fields = [f for f in dataclasses.fields(ROOTS[verb]) if "group" not in f.metadata]
    return {f.name: (_default(f), f.metadata["help"]) for f in fields}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
    return dataclasses.asdict(made) if dataclasses.is_dataclass(made) and not isinstance(made, type) else made
