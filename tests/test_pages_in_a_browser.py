"""What models, speakers and tables say is inert in both pages, in a real browser; the pages' own scripts run.

Each page is opened as it is, and once more without its content security policy, with every link and picture that it
has clicked and pointed at: there, escaping alone must hold. A page of the test's own shows that the browser would run
what these texts ask for.
"""

from __future__ import annotations

import dataclasses
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lgsrr.records import SPLITS, Utterance
from pipelines.outcomes import Outcome
from pipelines.output import Output
from pipelines.report import write_report as write_extraction_report
from pipelines.settings import ExtractConfig
from tests.browser import dom_of
from tests.extracted_outputs import receipt, set_aside
from tests.test_search_report import ALONE, HIGH, LOW, MIDDLE, PAPER, a_trial, report_of
from tune.page import search_page
from tune.records import SeedResult, Trial
from tune.space import Dimension
from tune.standings import standings

pytestmark = pytest.mark.slow

RUN = "void(document.documentElement.dataset.theirs='ran')"
HOSTILE = (
    f"<script>{RUN}</script>",
    f'<img src="data:," onerror="{RUN}">',
    f"</script><script>{RUN}</script>",
    f"</title></style></textarea><svg onload={RUN}>",
    f"\"' onmouseover={RUN} autofocus onfocus={RUN} x=",
    f"<!--<script>{RUN}//",
    f'<a href="javascript:{RUN}">click</a>',
    f"javascript:{RUN}",
    f"[click](javascript:{RUN}) ![x](javascript:{RUN}) <javascript:{RUN}>",
    f"`</code><script>{RUN}</script>` | **x** | <iframe srcdoc='<script>parent.{RUN}</script>'>",
    "&lt;script&gt; ${" + RUN + "} {{" + RUN + "}} \u202e",
)
PRODDED = """
<script>
addEventListener("load", () => {
  for (const one of document.querySelectorAll("*")) {
    for (const kind of ["mouseover", "focus", "click", "error"]) {
      if (one.tagName != "SCRIPT") one.dispatchEvent(new Event(kind, {bubbles: false}));
    }
    if (one.tagName == "A" && !/^https?:/.test(one.href)) one.click();
  }
  document.documentElement.dataset.prodded = "all";
});
</script>
"""
THEIRS = re.compile(r'data-theirs="ran"')


class Elements(HTMLParser):
    """The elements of a document: their names, and what could run something when it is touched."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.dangers: list[str] = []
        self.title = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            is_script = (value or "").strip().lower().startswith(("javascript:", "vbscript:", "data:text"))
            if name.startswith("on") or name == "srcdoc" or (name in ("href", "src", "xlink:href") and is_script):
                self.dangers.append(f"<{tag} {name}={value!r}>")

    def handle_data(self, data: str) -> None:
        if self.names[-1:] == ["title"] and not self.title:
            self.title = data


def prodded(page: Path) -> Path:
    """A copy without its policy, in which everything is touched."""
    text = page.read_text(encoding="utf-8")
    open_page, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert count == 1, "the page has a policy"
    place = open_page.rindex("</body>")
    copy = page.with_name(f"prodded-{page.name}")
    copy.write_text(open_page[:place] + PRODDED + open_page[place:], encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


def test_the_browser_runs_what_is_not_escaped(tmp_path: Path, profile: Path) -> None:
    """Or the tests below would show nothing."""
    for place, text in enumerate((HOSTILE[0], HOSTILE[1], HOSTILE[6])):
        page = tmp_path / f"{place}.html"
        page.write_text(f"<!doctype html><html><body><p>{text}</p>{PRODDED}</body></html>", encoding="utf-8")
        assert THEIRS.search(dom_of(page, profile)), text


def hostile_extraction(folder: Path) -> Path:
    """The report of an extraction in which every name and every word is hostile."""
    output = Output(str(folder / "out"))
    said = [Utterance(id=f"u{i}{t}", text=t, split=SPLITS[i % 3], label=t, video=t) for i, t in enumerate(HOSTILE)]
    output.write_utterances(said)
    listed = [{"name": text, "instruction": text, "frequency": 1} for text in HOSTILE[:3]]
    found = {
        "by": "llm", "model": HOSTILE[0], "answers": 1, "refused": list(HOSTILE), "merged_by": HOSTILE[1],
        "table": [{"name": text, "frequency": 1, "said": list(HOSTILE)} for text in HOSTILE],
    }  # fmt: skip
    output.write_json("aspects.json", {"aspects": listed, "found": found})
    names = HOSTILE[:3]
    for u in said[:7]:
        made = receipt(model=u.text, prompt_version=u.text, revision=u.text)
        done = Outcome(id=u.id, stage="describe", status="done", receipts=(made,), aspects=names, texts=(u.text,) * 3)
        order = Outcome(id=u.id, stage="rank", status="done", receipts=(made,), aspects=names, shown=names[::-1])
        output.commit([done])
        output.commit([order] if u.split == "train" else [])
    output.commit([set_aside(u.id, u.text, u.text, raw_answer=u.text) for u in said[7:]])
    runs = [
        {"started": 1.79e9, "finished": 1.79e9 + 9, "command": f"python x --llm '{t}'", "stages": {}} for t in HOSTILE
    ]
    output.write_json("manifest.json", {"complete": True, "runs": runs})
    config = ExtractConfig(dataset=HOSTILE[3], data=str(folder), out=str(folder / "out"), videos=str(folder))
    return Path(write_extraction_report(config, output, ended_early=HOSTILE[2]))


def hostile_search(folder: Path) -> Path:
    """The page of a search in which every name, setting, reason and link is hostile."""
    trials = [PAPER, ALONE, *(a_trial("random", 1.1e-5 * (n + 1), label=text) for n, text in enumerate(HOSTILE))]
    failing = Trial(settings={"lr": 9e-4}, origin="random", label=HOSTILE[0])
    by_name = [Trial(settings={"lr": 1e-4, "encoder": text}, origin="random") for text in HOSTILE]
    every = [*trials, *by_name, failing]
    scores = [(LOW, MIDDLE, HIGH)[n % 3] for n in range(len(every) - 1)]
    base = report_of(every, [*scores, ()])
    results = [*base.results, SeedResult(trial=failing.id, seed=0, history=(), failure=" ".join(HOSTILE))]
    report = dataclasses.replace(
        base,
        name=HOSTILE[3],
        dataset=HOSTILE[0],
        created=HOSTILE[1],
        dimensions=(
            *base.dimensions,
            Dimension(name="encoder", choices=HOSTILE),
            Dimension(name=HOSTILE[0], choices=(1, 2)),
        ),
        results=results,
        standings=standings(every, results, 3, 1),
        links=dict.fromkeys(HOSTILE, f"javascript:{RUN}") | {HOSTILE[5]: f"https://example.org/'\"onclick={RUN}"},
    )
    page = folder / "search.html"
    page.write_text(search_page(report), encoding="utf-8")
    return page


def assert_nothing_of_theirs_ran(document: str) -> Elements:
    assert not THEIRS.search(document)
    elements = Elements(document)
    assert elements.dangers == []
    assert not {"iframe", "object", "embed", "textarea"} & set(elements.names)
    return elements


def test_the_report_of_an_extraction_runs_nothing_that_anybody_said(tmp_path: Path, profile: Path) -> None:
    page = hostile_extraction(tmp_path)
    elements = assert_nothing_of_theirs_ran(dom_of(page, profile))
    assert "script" not in elements.names
    assert elements.title == f"Extraction of {HOSTILE[3]}"
    touched = dom_of(prodded(page), profile)
    assert 'data-prodded="all"' in touched
    assert not THEIRS.search(touched)
    assert html.escape(HOSTILE[0], quote=False) in touched, "it is shown"


def test_the_page_of_a_search_runs_its_own_scripts_and_nothing_that_anybody_said(tmp_path: Path, profile: Path) -> None:
    page = hostile_search(tmp_path)
    document = dom_of(page, profile)
    elements = assert_nothing_of_theirs_ran(document)
    assert document.count('class="main-svg"') >= 3, "plotly has drawn its plots"
    assert elements.title == f"{HOSTILE[3]}: search on {HOSTILE[0]}"
    touched = dom_of(prodded(page), profile)
    assert 'data-prodded="all"' in touched
    assert not THEIRS.search(touched)
