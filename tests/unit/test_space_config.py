"""The YAML of each space repeats its defaults, default sizes are golden, and a user's own space needs four methods."""

import importlib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import yaml

from nas.architecture import Architecture
from nas.data import Task
from nas.errors import DegenerateArchitectureError
from search_spaces.genes import Genes, draw, everything, neighbour, verify

CONF = Path(__file__).parents[2] / "conf" / "space"
TASK = Task("image_classification", channels=3, classes=10)
SIZES = {"convnet": 2_048_385_024_000, "transformer": 123_694_940_160, "toy": 48, "reference": 16}


def load(name):
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    module, _, attribute = config.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), attribute), config


def plain(value):
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


@pytest.mark.parametrize("name", sorted({*SIZES, "decoder"}))
def test_yaml_names_every_argument_with_its_default(name):
    space_class, config = load(name)
    defaults = {item.name: plain(item.default) for item in fields(space_class) if item.init}
    assert defaults.pop("task") is MISSING
    # Sizes of the input are the data's; a space of several tasks takes those that the data have.
    sizes = [key for key in ("resolutions", "lengths", "contexts") if key in defaults]
    for key in sizes:
        defaults.pop(key)
        assert config.pop(key) in (f"${{oc.select:data.{key},[]}}", f"${{data.{key}}}")
    assert sizes
    assert config == defaults


@pytest.mark.parametrize("name", sorted(SIZES))
def test_size_with_one_resolution(name):
    space_class, config = load(name)
    config.pop("lengths", None)
    assert space_class(TASK, **{**config, "resolutions": [32]}).size() == SIZES[name]
    assert space_class(TASK, **{**config, "resolutions": [24, 32]}).size() == 2 * SIZES[name]


@dataclass
class Own:
    """A user's space that inherits nothing."""

    name: str = "own"

    def suggest(self, suggester) -> Architecture:
        genes = Genes(suggester)
        deep = genes.choose("deep", ["yes", "no"])
        genes.choose_precision("body", ["fp32", "int8"])
        if deep == "yes":
            extra = genes.choose("extra", [1, 2, 5])
            if extra == 5:
                raise DegenerateArchitectureError("extra of 5 is too much; expected 1 or 2")
        return genes.architecture(self.name)


def test_a_space_of_a_users_own_needs_only_suggest():
    own, rng = Own(), np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        architecture = draw(own.suggest, rng)
        verify(own.suggest, architecture, own.name)
        assert architecture.choices.get("extra") != 5
        other = neighbour(own.suggest, architecture, rng)
        assert other.id != architecture.id
        seen |= {architecture.id, other.id}
    assert len(seen) == 2 * (1 + 2)


def test_enumeration_visits_every_branch_once():
    def ask(suggester):
        genes = Genes(suggester)
        for index in range(genes.choose("depth", [0, 1, 2])):
            genes.choose(f"kernel{index}", [3, 5])
        return genes.architecture("x")

    ids = [architecture.id for architecture in everything(ask)]
    assert len(ids) == len(set(ids)) == 1 + 2 + 4


def test_a_space_without_a_way_out_says_so():
    def never(suggester):
        raise DegenerateArchitectureError("nothing fits")

    with pytest.raises(DegenerateArchitectureError, match=r"1000 random draws .* nothing fits"):
        draw(never, np.random.default_rng(0))

    def only(suggester):
        genes = Genes(suggester)
        genes.choose("one", [1])
        return genes.architecture("x")

    with pytest.raises(DegenerateArchitectureError, match="no neighbour"):
        neighbour(only, draw(only, np.random.default_rng(0)), np.random.default_rng(0))
