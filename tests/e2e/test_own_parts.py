"""A space, a proxy, a runtime and a device of a user's own: written by nas new, tested and searched with unedited."""

import json
import subprocess
import sys

import pytest

from nas.cli import main
from nas.store import StudyStore

KINDS = ("space", "proxy", "runtime", "device")


def run(*words, cwd):
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder with one part of each kind."""
    folder = tmp_path_factory.mktemp("own")
    for kind in KINDS:
        assert main(["new", kind, f"my_{kind}", f"to={folder / 'mine'}"]) == 0
    return folder


def test_what_nas_new_writes_passes_its_suites_unedited(mine):
    text = run("pytest", "-q", "-p", "no:cacheprovider", "mine", cwd=mine)
    assert "failed" not in text
    assert int(text.split(" passed")[0].split()[-1]) >= 40


def test_a_search_uses_all_four(mine):
    plugins = ",".join(f"mine/my_{kind}.py" for kind in KINDS)
    chosen = ("space=my_space", "accuracy=my_proxy", "runtime=my_runtime", "device=my_device", "cost=predicted")
    rest = ("objective=proxy_latency_size", "budget=2", "tracking=none", "proxies=[]", "executor=in_process")
    flags = ("--config-dir", "mine", "--plugin", plugins)
    text = run("nas", "search", *flags, *chosen, *rest, "output=json", "study=own", cwd=mine)
    report = json.loads(text.splitlines()[-1])
    assert report["trials"]["complete"] == 2
    assert all("proxy_score" in member for member in report["front"])


def test_a_users_proxy_is_noted_beside_ours_and_can_be_a_constraint(mine):
    flags = ("--plugin", "mine/my_proxy.py")
    chosen = ("space=toy", "accuracy=zero_cost", "objective=proxy_latency_size", "cost=predicted", "budget=3")
    rest = ("proxies=[macs,my_proxy.MyProxy]", "+drop_worst.my_proxy=0.5", "tracking=none", "executor=in_process")
    text = run("nas", "search", *flags, *chosen, *rest, "output=json", "study=noted", "keep=all", cwd=mine)
    assert json.loads(text.splitlines()[-1])["trials"]["complete"] == 3
    store = StudyStore(mine / "runs" / "noted" / "store.sqlite")
    assert all("proxy_my_proxy" in record.evaluation.values for record in store.trials() if record.evaluation)
    store.close()


def test_no_config_runs_a_users_file_that_the_command_line_does_not_name(mine, tmp_path, capsys):
    words = ["search", "--config-dir", str(mine / "mine"), "space=my_space", "budget=1", f"folder={tmp_path}"]
    assert main([*words, "tracking=none", "cost=predicted"]) == 2
    said = capsys.readouterr().err
    assert "my_space.MySpace is refused" in said
    assert "--plugin FILE.py" in said


def test_nas_profile_times_in_a_runtime_of_a_users_own(mine):
    import numpy as np

    from nas.testing.runtime_suite import write_dense

    write_dense(mine / "dense.onnx", np.ones((6, 4), np.float32))
    flags = ("--plugin", "mine/my_runtime.py", "--config-dir", "mine", "runtime=my_runtime")
    text = run("nas", "profile", "dense.onnx", *flags, "output=json", "runs=5", cwd=mine)
    assert json.loads(text.splitlines()[-1])["runtime"].startswith("my_runtime-1-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new", "space", "json"], "installed and would hide yours"),
        (["new", "space", "My-Space"], "expected small letters"),
        (["new", "spice", "x"], "Did you mean 'space'"),
        (["new", "space", "a", "b"], "takes one kind and one name"),
        (["search", "--plugin", "nowhere.py"], "--plugin nowhere.py: no nowhere.py"),
    ],
)
def test_wrong_words_are_refused(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_nas_new_replaces_nothing(mine, capsys):
    assert main(["new", "space", "my_space", f"to={mine / 'mine'}"]) == 2
    assert "replaces nothing" in capsys.readouterr().err
