"""Help texts: verbs, groups with their members, and root keys, read from the schemas and the YAML files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nas
from nas.config import schema
from nas.config.paths import conf_dir, group_members

VERBS = {
    "search": ("", "find networks that are accurate and fast on a device, and export the one that ships"),
    "plan": ("", "say what a search would spend and whether its limits leave anything, without searching"),
    "front": ("STUDY", "show the front of a finished search, and decide it again"),
    "profile": ("MODEL", "time any ONNX file on this machine, as a whole and per operator"),
    "fit": ("", "time untrained networks of some spaces on this device, and fit a latency model to them"),
    "predict": ("FILE", "predict the latency of any ONNX file on a device, with its share per kernel"),
    "export": ("STUDY", "write the folder that ships, after scoring and timing it again"),
    "new": ("KIND NAME", "write a first version of a space, proxy, runtime or device of your own, with its test"),
    "devices": ("", "say what this machine and the configured devices are and offer"),
    "score-latency": ("", "hold architectures of a table of measurements out, and score predictions of their cost"),
}

_EXAMPLES = {
    "search": (
        "nas search",
        "nas search space=transformer budget=100 hours=1",
        "nas search data=imagefolder data.path=pictures objective.latency_ms.bound=2",
        "nas search -m seed=0,1,2 space=convnet,transformer",
        "nas search resume=STUDY budget=200",
    ),
    "plan": ("nas plan", "nas plan space=transformer limits.macs=2000000 budget=100", "nas plan plan.trial=false"),
    "front": ("nas front STUDY", "nas front STUDY rule=best_under_2ms", "nas front STUDY bounds.latency_ms=1.5"),
    "profile": ("nas profile model.onnx", "nas profile model.onnx runs=200 save=times.json"),
    "fit": (
        "nas fit",
        "nas fit device=local space=convnet,hybrid,transformer runtime=onnxruntime,native minutes=10",
        "nas fit space=convnet minutes=2 name=quick",
    ),
    "predict": (
        "nas predict model.onnx",
        "nas predict model.onnx runtime=native model=runs/latency_models/quick",
        "nas predict model.onnx device=rpi5",
    ),
    "export": ("nas export STUDY", "nas export STUDY trial=17 to=model_17"),
    "new": ("nas new space my_space", "nas new proxy my_proxy to=mine"),
    "devices": ("nas devices", "nas devices device=rpi5 output=json"),
    "score-latency": (
        "nas score-latency table=cells.parquet space=nasbench201 target=latency_ms",
        "nas score-latency table=cells.parquet space=nasbench201 target=energy_mj latency=latency_ms",
        "nas score-latency table=cells.parquet space=nasbench201 target=new_ms transfer_from=[a_ms,b_ms] train=10",
        "nas score-latency table=models.csv space=hat target=latency_mean_encoder+latency_mean_decoder train=1600",
    ),
}

_FLAGS = {
    "-m, --multirun": "one run per combination of values: seed=0,1 space=toy,convnet",
    "--cfg job": "print the composed config and stop (--package KEY for a part, --resolve for values)",
    "--config-dir DIR": "configs of your own, as DIR/GROUP/NAME.yaml",
    "--plugin FILE.py": "a Python file of your own whose classes your configs may name; nas new makes a first one",
    "-h, --help": "after a verb: its groups and keys",
    "-V, --version": "print the version",
}
_WIDTH = 110


def overview(own: Path | None = None) -> str:
    """Return the help of ``nas`` itself: verbs, flags, and the groups and keys of a search."""
    verbs = {f"{verb} {word}".strip(): text for verb, (word, text) in VERBS.items()}
    return "\n".join(
        [
            f"nas {nas.__version__}: {(nas.__doc__ or '').strip()}",
            "",
            "usage: nas VERB [MODEL] [key=value ...]",
            "",
            *_section("verbs", verbs.items()),
            *_section("flags", _FLAGS.items()),
            *_section("groups of a search, chosen by GROUP=NAME (* is the default)", _groups("search", own)),
            *_section("keys of a search", _keys("search")),
            "Keys within a group are set by GROUP.KEY=VALUE; nas VERB --cfg job shows them all.",
            "NAS_TRACEBACK=1 shows where an error comes from.",
        ]
    )


def of_verb(verb: str, own: Path | None = None) -> str:
    """Return the help of one verb."""
    word, text = VERBS[verb]
    usage = " ".join(part for part in ("nas", verb, word, "[key=value ...]") if part)
    return "\n".join(
        [
            f"nas {verb}: {text}",
            "",
            f"usage: {usage}",
            "",
            *_section("groups, chosen by GROUP=NAME (* is the default)", _groups(verb, own)),
            *_section("keys", _keys(verb)),
            *_section("examples", ((line, "") for line in _EXAMPLES[verb])),
            f"Keys within a group are set by GROUP.KEY=VALUE; nas {verb} --cfg job shows them all.",
        ]
    )


def _section(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    if not rows:
        return []
    left = min(max(len(name) for name, _ in rows), 26)
    lines = [f"{title}:"]
    for name, text in rows:
        wrapped = textwrap.wrap(text, _WIDTH - left - 4) or [""]
        lines.append(f"  {name:<{left}}  {wrapped[0]}".rstrip())
        lines += [f"  {'':<{left}}  {more}" for more in wrapped[1:]]
    return [*lines, ""]


def _groups(verb: str, own: Path | None) -> list[tuple[str, str]]:
    defaults = default_members(verb)
    rows = []
    for group, text in schema.groups(verb).items():
        names = [f"{name}*" if name == defaults.get(group) else name for name in group_members(group, own)]
        rows.append((group, f"{' '.join(names)} - {text}"))
    return rows


def default_members(verb: str) -> dict[str, str]:
    """Return group to default member, as the defaults list of ``conf/VERB.yaml`` has them."""
    text = (conf_dir() / f"{'search' if verb == 'plan' else verb}.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^  - (\w+): (\w+)", text, flags=re.MULTILINE))


def _keys(verb: str) -> list[tuple[str, str]]:
    rows = schema.keys(verb).items()
    return [
        (f"{name}.KEY=" if isinstance(default, dict) else f"{name}={_shown(default)}", text)
        for name, (default, text) in rows
    ]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value).replace("???", "REQUIRED")
