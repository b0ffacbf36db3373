"""MLflow's pages and the Pareto page in a real browser that can reach this machine alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from nas.protocols import ShippedModel
from nas.testing.snapshots import make_operators, make_snapshot
from nas.tracking.address import resolve_address
from nas.tracking.writer import StudyWriter

FRONT = (0, 114, 178)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
]
# No name resolves and nothing but the loopback answers: what renders, renders without a network.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@pytest.fixture(scope="module")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found:
        return found
    text = "Chromium is missing, so the pages are not checked; install Debian's package chromium or set CHROMIUM"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


@dataclass(frozen=True)
class Site:
    """A running user interface over a store with two searches."""

    root: str
    parent: str
    pareto: Path

    def url(self, tail: str) -> str:
        return f"{self.root}/#/experiments/1/runs{tail}?workflowType=machine_learning"


@pytest.fixture(scope="module")
def site(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    empty, uri = tmp_path_factory.getbasetemp() / "mlflow-empty.db", f"sqlite:///{folder / 'mlflow.db'}"
    if empty.exists():  # the tables that other tests made already; making them takes 8 s
        shutil.copy(empty, folder / "mlflow.db")
    address = resolve_address(uri, None)
    convnet = make_snapshot(folder / "a", trials=16, study="digits-convnet", finished=True)
    shipped = ShippedModel(convnet.front[1], folder / "a", "knee", "it bends", make_operators())
    # Without the shipped model's file there is nothing to register; this test is about pages.
    StudyWriter(address, "hwnas").write(replace(convnet, finished=False), with_files=True)
    writer = StudyWriter(address, "hwnas")
    _, parent = writer.write(replace(convnet, shipped=shipped), with_files=False)
    transformer = make_snapshot(folder / "b", trials=4, study="digits-transformer", seed=1, finished=True)
    StudyWriter(address, "hwnas").write(transformer, with_files=False)
    with serving(uri, folder) as root:
        yield Site(root, parent, next(folder.glob(f"artifacts/{parent}/artifacts/pareto.html")))


class serving:  # noqa: N801 - reads as a sentence
    """A user interface on a free port, ended with all its workers."""

    def __init__(self, uri: str, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "ui",
            "--backend-store-uri",
            uri,
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        self._log = (folder / "ui.log").open("wb")
        quick = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment = {**os.environ, **quick}
        self._process = subprocess.Popen(
            command, cwd=folder, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
        self._root, self._folder = f"http://127.0.0.1:{port}", folder

    def __enter__(self) -> str:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self._root}/health", timeout=5).close()
                return self._root
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None:
                    break
                time.sleep(0.2)
        self.__exit__()
        pytest.fail(f"mlflow ui did not start:\n{(self._folder / 'ui.log').read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        # It has nothing to lose, and its orderly end takes 10 s.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._log.close()


def browse(
    chromium: str, url: str, folder: Path, *flags: str, awaited: str, front: bool = False, size: str = "1600,1000"
) -> tuple[str, Path]:
    """Return the drawn page's DOM and a picture of it.

    The browser is started again, three times in all, when it hangs or when its own clock ran out before ``awaited``,
    and the front's colour where asked for, were there, as happens on a busy machine; its clock then runs longer.
    """
    dom, picture = "", folder / "page.png"
    for attempt in (1, 2, 3):
        profile = folder / f"profile{attempt}-{time.monotonic_ns()}"
        command = [chromium, *FLAGS, OFFLINE, *flags, f"--user-data-dir={profile}", f"--window-size={size}"]
        command += [f"--virtual-time-budget={20000 * attempt}", f"--screenshot={picture}", "--dump-dom", url]
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            continue
        finally:
            shutil.rmtree(profile, ignore_errors=True)
        dom = done.stdout.decode()
        if picture.is_file() and awaited in dom and (not front or pixels(picture, FRONT) > 300):
            return dom, picture
    wanted = f"'{awaited}'" + (" and a front" if front else "")
    pytest.fail(f"Chromium did not render {url} in three tries; there is no {wanted} in {dom[-2000:]!r}")


def pixels(picture: Path, colour: tuple[int, int, int]) -> int:
    with Image.open(picture) as opened:
        counts = opened.convert("RGB").getcolors(1 << 24)
    return sum(
        count
        for count, (red, green, blue) in counts
        if max(abs(red - colour[0]), abs(green - colour[1]), abs(blue - colour[2])) < 12
    )


def test_the_table_shows_the_searches(chromium: str, site: Site, tmp_path: Path) -> None:
    dom, _ = browse(chromium, site.url(""), tmp_path, awaited="matching runs")
    assert ">digits-convnet<" in dom
    assert ">digits-transformer<" in dom


def test_the_page_of_a_search_shows_front_and_metrics(chromium: str, site: Site, tmp_path: Path) -> None:
    dom, _ = browse(chromium, site.url(f"/{site.parent}"), tmp_path, awaited="Ships: trial", size="1500,1600")
    text = re.sub(r"<[^>]+>", " ", dom)
    assert "best_accuracy" in text
    assert "hypervolume" in text
    assert re.search(r"<th[^>]*>\s*Latency \[ms\]\s*</th>", dom), "the front's table is not drawn as a table"
    assert f"get-artifact?path=pareto.png&amp;run_uuid={site.parent}" in dom


def test_the_pareto_page_draws_inside_mlflow(chromium: str, site: Site, tmp_path: Path) -> None:
    # The frame is sandboxed; in a process of its own its picture would be missing from the screenshot.
    together = ("--disable-site-isolation-trials", "--disable-features=IsolateSandboxedIframes")
    page = site.url(f"/{site.parent}/artifacts/pareto.html")
    browse(chromium, page, tmp_path, *together, awaited="mlflow-html-iframe", front=True)


def test_the_pareto_page_draws_offline(chromium: str, site: Site, tmp_path: Path) -> None:
    alone = tmp_path / "alone.html"
    shutil.copy(site.pareto, alone)
    unreachable = "--host-resolver-rules=MAP * ~NOTFOUND"
    dom, picture = browse(
        chromium, alone.as_uri(), tmp_path, unreachable, awaited="js-line", front=True, size="1200,800"
    )
    lines = re.findall(r'<path class="js-line"[^>]* d="(M[^"]+)"', dom)
    assert any(line.count("L") + line.count("H") + line.count("V") > 3 for line in lines), "the front's line is missing"
    assert len(re.findall(r'<path class="point', dom)) >= 10
    assert "digits-convnet" in dom
    with Image.open(picture) as opened:
        assert len(opened.convert("RGB").getcolors(1 << 24)) > 100
