"""A run as a page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from dtimer import DTimer
from dtimer.sim import Simulation, World
from dtimer.sim.faulty.trace import Record
from dtimer.sim.scenario.options import Options
from dtimer.sim.scenario.runner import run_seed
from dtimer.sim.show.timeline import timeline_html
from support.cluster import Shop

pytestmark = pytest.mark.once

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY: Final = "</script><b onclick='x'>\"&__TITLE__"
VIOLATION: Final[Record] = {
    "t": 900_000_000, "who": "world", "what": "violation", "rules": "D2", "at": "n1", "id": NASTY, "text": "<i>no</i>"
}  # fmt: skip


def storm() -> list[Record]:
    run = run_seed(Options(nodes=3, hours=0.25), 2, keep=100_000).run
    return [*run.trace, {"t": 900_000_000, "who": "n1", "what": "handler", "id": NASTY, "delivery": 1}, VIOLATION]


def records_in(page: str) -> object:
    (data,) = re.findall(r'<script type="application/json" id="records">(.*?)</script>', page, re.DOTALL)
    return json.loads(data)


def test_the_page_needs_nothing_but_itself() -> None:
    page = timeline_html([])

    assert not re.findall(r"https?:|\bsrc\s*=|@import|url\(|<link|fetch\(|XMLHttpRequest", page)


def test_what_anybody_named_stays_data() -> None:
    """In the page there are as many elements as without it, and it comes out as it was."""
    records: list[Record] = [{"t": 0, "who": "n1", "what": "note", "id": NASTY, "text": "\u2028<!-- <script>"}]
    page = timeline_html(records, title=NASTY + "__RECORDS__")

    assert records_in(page) == records
    assert page.count("<script") == timeline_html([]).count("<script")
    assert "<b onclick" not in page
    assert "<title>&lt;/script&gt;&lt;b onclick=&#x27;x&#x27;&gt;&quot;&amp;__TITLE____RECORDS__</title>" in page


def test_a_run_draws_itself(tmp_path: Path) -> None:
    simulation = Simulation(seed=5, nodes=2)
    Shop(simulation)

    async def scenario(world: World) -> None:
        await DTimer(world.backend()).post(None, 10, id="e")
        await world.until(lambda: world.counts.get("delivered"))

    run = simulation.run(scenario)
    run.timeline(tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text(encoding="utf-8")

    assert records_in(page) == list(run.trace)
    assert "<title>dtimer simulation, seed 5</title>" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
@pytest.mark.parametrize("where", ["whole", "without its beginning", "one event", "nothing"])
def test_a_browser_runs_it_without_an_error(where: str, tmp_path: Path) -> None:
    """It fills in the time that is shown when all is drawn, and the life of the event that the address names."""
    records = {"whole": storm, "without its beginning": lambda: storm()[500:], "one event": storm, "nothing": list}
    page = tmp_path / "page.html"
    page.write_text(timeline_html(records[where]()), encoding="utf-8")
    address = page.as_uri()
    if where == "one event":
        address += "#from=899000000&to=901000000&id=%3C%2Fscript%3E%3Cb+onclick%3D%27x%27%3E%22%26__TITLE__"

    dom, said = shown(address, tmp_path)

    assert "CONSOLE" not in said
    assert re.search(r'<span id="span">.* to .*</span>', dom)
    assert ("event &lt;/script&gt;" in dom) is (where == "one event")
    if where == "one event":
        assert "violation of D2 at n1" in dom
        assert "<i>no" not in dom


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
def test_an_error_in_the_page_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(timeline_html([]).replace('"use strict";', '"use strict"; nonsense();'), encoding="utf-8")

    assert "CONSOLE" in shown(page.as_uri(), tmp_path)[1]


def shown(address: str, folder: Path) -> tuple[str, str]:
    """The page's elements after its script has run, and what the browser said meanwhile."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom", address,
        ],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    # The records are in the page, too; what is looked for is what the script made of them.
    return re.sub(r'(?s)<script type="application/json".*?</script>', "", done.stdout), done.stderr
