from nas.tracking.compare import compare_line

ROOT = "http://127.0.0.1:5000/#/experiments"


def test_searches_of_one_experiment_open_on_one_page():
    lines = [f"mlflow ui --port 5000  ->  {ROOT}/1/runs/{run}?workflowType=machine_learning" for run in ("aa", "bb")]
    line = compare_line([*lines, "tracking is off"])
    assert line.startswith("mlflow ui --port 5000  ->  http://127.0.0.1:5000/#/compare-runs?runs=")
    assert line.endswith("runs=%5B%22aa%22%2C%22bb%22%5D&experiments=%5B%221%22%5D")


def test_one_search_or_two_experiments_have_no_common_page():
    assert compare_line([f"{ROOT}/1/runs/aa?x", "off"]) == ""
    assert compare_line([f"{ROOT}/1/runs/aa?x", f"{ROOT}/2/runs/bb?x"]) == ""
