"""The report: it shows what the output holds, and nothing that anybody said becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from lgsrr import storage
from lgsrr.blotting import without_keys
from lgsrr.errors import DataError
from lgsrr.extracted import RANKINGS_FOLDER
from pipelines.inputs import GIVEN
from pipelines.markup import escaped, joined, tag
from pipelines.outcomes import Outcome
from pipelines.output import Output
from pipelines.rank import PositionBias, position_bias
from pipelines.report import (
    Facts,
    bias_of,
    facts_of,
    latest_report,
    places_of,
    spent_of,
    write_report,
)
from pipelines.report_page import bias_sentence, report_page
from pipelines.samples import draw_samples
from pipelines.settings import ExtractConfig
from pipelines.thumbnails import pictures_of
from tests.clip_files import text_as
from tests.clips import moving_square, write_clip
from tests.extracted_outputs import (
    ASPECTS,
    EVIL,
    described,
    receipt,
    set_aside,
    utterances,
    write_evil_output,
    write_output,
)


class Seen(HTMLParser):
    """What a page is made of, as a parser sees it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.urls: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(name)
        self.attributes.update(key for key, _ in attributes)
        self.urls += [value or "" for key, value in attributes if key in ("src", "href", "action", "data")]
        if name not in ("meta", "img"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def config(output: Output, **more: object) -> ExtractConfig:
    return ExtractConfig(dataset="mine", out=output.out, engine="scripted", **more)  # type: ignore[arg-type]


def seen(facts: Facts) -> Seen:
    return Seen(report_page(facts).decode())


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    output = write_output(tmp_path_factory.mktemp("report"))
    return facts_of(config(output), output)


@pytest.fixture(scope="module")
def page(facts: Facts) -> Seen:
    return seen(facts)


def test_the_funnel_counts_each_step_by_split(facts: Facts) -> None:
    counts = {step.name: dict(step.counts) for step in facts.funnel}
    assert counts == {
        "utterances": {"train": 20, "dev": 10, "test": 10},
        "with a clip": {"train": 19, "dev": 10, "test": 9},
        "described": {"train": 19, "dev": 9, "test": 9},
        "ranked": {"train": 19},
    }


def test_the_page_says_who_described_and_ranked_and_calls_a_stand_in_by_its_name(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    output.write_utterances(utterances(4))
    output.commit([described("u0", model="small"), described("u1", model="scripted"), described("u2", model=GIVEN)])
    order = Outcome(
        id="u0", stage="rank", status="done", receipts=(receipt("r", model="stand-in"),), aspects=ASPECTS, shown=ASPECTS
    )
    output.commit([order])
    facts = facts_of(ExtractConfig(dataset="d", out=str(tmp_path)), output)
    assert facts.makers == {"describe": ("scripted", "small"), "rank": ("stand-in",)}
    words = " ".join(" ".join(Seen(report_page(facts).decode()).words).split())
    assert "Described by scripted , which says rules' words in place of a video model and is none, small ." in words
    assert "Ranked by stand-in , which answers by rules in place of a language model and is none." in words


def test_descriptions_that_came_with_the_data_need_no_clip(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    output.write_utterances(utterances(4))
    output.commit([described(f"u{i}", model="given", attempts=0) for i in range(4)])
    facts = facts_of(config(output), output)
    assert [step.name for step in facts.funnel] == ["utterances", "described", "ranked"]
    assert "4 of the descriptions came with the data" in seen(facts).text


def test_failures_are_grouped_with_what_to_do_and_the_first_ids(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    output.write_utterances(utterances(12))
    output.commit([set_aside("u0", "clip"), *(set_aside(f"u{i}", "no_clip", f"lost {i}") for i in range(1, 9))])
    facts = facts_of(config(output), output)
    assert [(f.reason, f.count, f.advice) for f in facts.failures] == [
        ("no_clip", 8, "Mend it."),
        ("clip", 1, "Mend it."),
    ]
    words = seen(facts).text
    assert "8 × no_clip in describe" in words
    assert "u5 lost 5 and 3 more" in words


def test_the_ranking_table_counts_places_as_the_papers_table_7(facts: Facts, page: Seen) -> None:
    assert facts.places == {ASPECTS[0]: (19, 0, 0), ASPECTS[1]: (0, 19, 0), ASPECTS[2]: (0, 0, 19)}
    assert "aspect 1st 2nd 3rd Speakers' Actions 19 0 0" in page.text


def test_places_know_aspects_that_aspects_json_no_longer_names() -> None:
    assert places_of([("b", "a")], ["a", "c"]) == {"a": (0, 1), "c": (0, 0), "b": (1, 0)}
    assert places_of([], ["a"]) == {}


def test_cost_and_tokens_come_from_receipts_with_failures_and_discovery(facts: Facts) -> None:
    spent = {s.stage: s for s in facts.spent}
    assert [s.stage for s in facts.spent] == ["discover", "describe", "rank"]
    assert (spent["describe"].calls, spent["describe"].input_tokens) == (37 + 2, 3900)
    assert spent["describe"].cost_usd == pytest.approx(37 * 0.25 + 2 * 0.5)
    assert spent["describe"].waited_s == pytest.approx(2.0 * 39)  # one answer made three rows; it waited once
    assert facts.cost_usd == pytest.approx(0.125 + 10.25 + 19 * 0.25 + 1.0)


def test_discovery_shows_its_frequencies_and_the_names_that_were_merged(page: Seen) -> None:
    assert "gpt was asked 10 times over random training utterances; one answer could not be used" in page.text
    assert "Scene Description 9 Scene Description, scene description" in page.text


def bias(first_first: float, rankings: int) -> PositionBias:
    return PositionBias(counts=((0,) * 3,) * 3, first_first=first_first, correlation=0.1, rankings=rankings)


@pytest.mark.parametrize(
    ("measured", "meaning"),
    [
        (bias(0.60, 1000), "the model favours what it sees first"),
        (bias(0.34, 1000), "This is within chance"),
        (bias(0.20, 1000), "the model shuns what it sees first"),
        (bias(1.00, 5), "too few rankings to tell"),
    ],
)
def test_the_position_bias_is_told_with_what_it_means(measured: PositionBias, meaning: str) -> None:
    assert meaning in bias_sentence(measured)


def test_rankings_that_came_with_the_data_have_no_position_bias() -> None:
    assert bias_of([{"shown": None, "aspects": ["a", "b"]}, {"shown": [], "aspects": ["a", "b"]}]) is None
    measured = bias_of([{"shown": ["b", "a"], "aspects": ["a", "b"]}, {"shown": ["a"], "aspects": ["b"]}])
    assert measured == position_bias([(["b", "a"], ["a", "b"])])


def test_samples_are_the_same_for_the_same_seed_and_take_some_of_each_split(tmp_path: Path) -> None:
    output = write_output(tmp_path)
    samples = draw_samples(output, seed=0)
    assert samples == draw_samples(output, seed=0) != draw_samples(output, seed=1)
    assert len(samples) == 12
    assert [bool(s.trouble) for s in samples] == [False] * 10 + [True] * 2
    assert {s.split for s in samples[:10]} == {"train", "dev", "test"}
    assert samples[0].descriptions == tuple(zip(ASPECTS, ("nods", "smiles", "turns"), strict=True))
    assert (
        samples[0].receipts[0].startswith("described: by m, prompt p-1, 3 frames, 1 call, 100 tokens in, 10 out, $0.25")
    )


def test_nothing_that_a_model_a_speaker_or_a_table_said_becomes_markup(tmp_path: Path) -> None:
    output = write_evil_output(tmp_path)
    facts = facts_of(config(output), output, ended_early=EVIL[0])
    page = report_page(facts).decode()
    parsed = Seen(page)
    ours = {"html", "head", "meta", "title", "style", "body", "header", "main", "section", "article", "div", "span"}
    ours |= {"h1", "h2", "h3", "p", "b", "small", "code", "pre", "ul", "li", "dl", "dt", "dd", "blockquote", "details"}
    ours |= {"summary", "table", "thead", "tbody", "tr", "th", "td", "svg", "rect"}
    assert parsed.tags <= ours
    assert not {name for name in parsed.attributes if name.startswith("on")}
    assert parsed.urls == []
    assert parsed.open == []
    assert page.count("<style>") == page.count("</style>") == 1
    for text in EVIL[:5]:
        assert " ".join(text.split()) in parsed.text, text
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", page)


def test_the_page_runs_no_script_and_fetches_nothing(tmp_path: Path) -> None:
    output = write_output(tmp_path)
    page = Path(write_report(config(output), output)).read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none';")
    assert "script" not in policy[1]
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<body>")
    assert "url(" not in page
    assert "@import" not in page
    assert "<script" not in page
    assert Seen(page).urls == []


def test_a_text_is_escaped_unless_a_tag_made_it() -> None:
    assert tag("p", "<b>", tag("b", "&"), title='"') == '<p title="&quot;">&lt;b&gt;<b>&amp;</b></p>'
    assert joined(["a<", [1, None]]) == "a&lt;1"
    assert escaped("\x00 \ud800 \u202e tab\t") == "\ufffd \ufffd \ufffd tab\t"


def test_an_output_with_nothing_in_it_gives_a_page_that_says_so(tmp_path: Path) -> None:
    words = seen(facts_of(config(Output(str(tmp_path))), Output(str(tmp_path)))).text
    for said in ("Nothing was set aside.", "There are no aspects yet.", "Nothing is ranked yet.", "No run has come"):
        assert said in words


def test_a_run_that_ended_early_says_why_without_its_keys(tmp_path: Path) -> None:
    output = write_output(tmp_path)
    facts = facts_of(config(output), output, ended_early="401 for sk-abcdefghijklmnopqrstuv at http://me:pw@host/v1")
    assert "The last run ended early: 401 for … at http://host/v1" in seen(facts).text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--base-url http://me:secret@host:80/v1", "--base-url http://host:80/v1"),
        ("--base-url=https://me:secret@host/v1", "--base-url=https://host/v1"),
        ("https://host/v1?api-key=12345&x=1", "https://host/v1?api-key=…&x=1"),
        ('{"base_url": "http://me:secret@host/v1"}', '{"base_url": "http://host/v1"}'),
        ("--llm sk-proj-abcdefghijklmnop123", "--llm …"),
        ("the-key-of-this-process here", "… here"),
        (
            "--data /a/skateboarding-in-the-park --out s3://bucket/out",
            "--data /a/skateboarding-in-the-park --out s3://bucket/out",
        ),
    ],
)
def test_no_key_is_shown(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the-key-of-this-process")
    assert without_keys(text) == shown


def test_the_page_is_written_anew_only_where_something_changed(tmp_path: Path) -> None:
    output = write_output(tmp_path)
    path = Path(latest_report(config(output), output, changed=False))
    path.write_text("mine")
    assert latest_report(config(output), output, changed=False) == str(path)
    assert path.read_text() == "mine"
    latest_report(config(output), output, changed=True)
    assert path.read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    output = write_output(tmp_path)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(DataError, match=r"report\.html: cannot be written"):
        write_report(config(output), output)


def test_samples_show_three_pictures_of_their_clips_and_a_grey_box_where_there_are_none(tmp_path: Path) -> None:
    videos = tmp_path / "clips"
    videos.mkdir()
    output = write_output(tmp_path / "out", count=8)
    write_clip(videos / "u0.mp4", moving_square(12, 240, 320))
    text_as(videos / "u4.mp4")
    pictures = pictures_of(draw_samples(output, seed=0), videos=str(videos), data=None)
    assert len(pictures["u0"].urls) == 3
    assert all(url.startswith("data:image/jpeg;base64,") for url in pictures["u0"].urls)
    assert pictures["u1"].reason == "this clip cannot be shown"
    assert pictures["u4"].reason == "the clip cannot be opened"
    assert pictures["u3"].reason == "no clip was found"
    facts = facts_of(config(output, videos=str(videos)), output)
    parsed = seen(facts)
    assert len(parsed.urls) == 3
    assert "no clip was found" in parsed.text


def test_pictures_are_small(tmp_path: Path) -> None:
    import base64
    import io

    videos = tmp_path / "clips"
    videos.mkdir()
    write_clip(videos / "u0.mp4", moving_square(12, 240, 320))
    output = write_output(tmp_path / "out", count=2)
    url = pictures_of(draw_samples(output, seed=0), videos=str(videos), data=None)["u0"].urls[0]
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert max(picture.size) <= 240


def test_clips_that_are_out_of_reach_cost_the_report_no_time(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out")
    samples = draw_samples(output, seed=0)
    away = pictures_of(samples, videos=str(tmp_path / "nowhere"), data=None)
    assert {p.reason for p in away.values()} == {"the folder of the clips is not there"}
    clock = iter(range(0, 1000, 100))
    late = pictures_of(samples, videos=str(tmp_path), data=None, clock=lambda: float(next(clock, 1000)))
    assert {p.reason for p in late.values()} <= {"no time was left for this clip", "this clip cannot be shown"}


def test_spending_is_counted_once_for_rows_of_one_answer(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    output.commit([described("u0")])
    assert [(s.stage, s.calls, s.cost_usd) for s in spent_of(output)] == [("describe", 1, 0.25)]
    assert output.table(RANKINGS_FOLDER).num_rows == 0


def test_a_report_is_written_to_a_store_as_to_a_disk(tmp_path: Path) -> None:
    local = write_output(tmp_path)
    away = Output("memory://report-test/out")
    storage.write_bytes(away.path("utterances.parquet"), storage.read_bytes(local.path("utterances.parquet")))
    path = latest_report(config(away), away, changed=False)
    assert path == "memory://report-test/out/report.html"
    assert "Extraction of mine" in Seen(storage.read_bytes(path).decode()).text
