import re
from html.parser import HTMLParser

import pytest
from made_up_run import BASELINES, HEADLINE, PROGRAM, figures, make_run, record

import autotts
from env.errors import UserError
from search_agent.report import write_report

# What an HTML file can fetch or run besides its text; fragments lead to the file itself.
LOADING = ("src", "href", "srcset", "action", "data", "poster", "background", "formaction", "xlink:href")


def report(*args, **options) -> str:
    return write_report(make_run(*args, **options).path).read_text(encoding="utf-8")


def whole(path) -> str:
    """A finished run's report: an evaluated, a better, a failed, a refused round."""
    return report(
        path,
        record(1, 0.5),
        record(2, 0.6, parent=1),
        record(3),
        record(4, status="refused", error="line 3: not Python"),
        sources={1: PROGRAM.format(n=4), 2: PROGRAM.format(n=8), 4: "def ("},
        winner=2,
        holdout=True,
    )


class Page(HTMLParser):
    """Tags, the addresses they name, and their text; complains where tags do not pair up."""

    VOID = ("meta", "br", "wbr", "path", "polyline", "input")

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in LOADING]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_begins_with_the_sentence_and_is_well_formed(tmp_path):
    text = whole(tmp_path / "run")
    page = Page(text)
    assert f"<title>{HEADLINE}</title>" in text
    assert re.search("<h1>(.*?)</h1>", text)[1] == HEADLINE
    for expected in (
        *BASELINES,
        "winner",
        "refused",
        "failed",
        "the model refused",
        "standard",
        "strict, level A",
    ):
        assert expected in page.text, expected
    assert "evaluated 6 times (6 different programs)" in page.text


def test_it_loads_nothing(tmp_path):
    text = whole(tmp_path / "run")
    # The one address is the name by which a browser knows SVG.
    text = text.replace('"http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?://|@import|url\(|fetch\(|import\(|XMLHttpRequest|WebSocket", text)
    assert all(re.match("#round-|#[a-z]+$", address) for address in Page(text).addresses)
    assert "default-src 'none'" in text


def test_a_round_shows_its_parent_its_change_and_its_schedule(tmp_path):
    text = whole(tmp_path / "run")
    second = re.search('<details class="one" id="round-2" open>.*?</details>', text, re.DOTALL)[0]
    assert '<a href="#round-1">round 1</a>' in second
    assert "+2 −2 lines" in second
    assert "0.600 (+0.100)" in second
    assert re.search(r"<code>n</code></td><td>1</td><td>5</td><td>9</td><td>12</td><td>16</td>", second)
    assert second.count('class="line ins"') == second.count('class="line del"') == 2


def test_tokens_never_stand_without_sequential_tokens(tmp_path):
    heads = re.findall("<thead>(.*?)</thead>", whole(tmp_path / "run"))
    with_tokens = [head for head in heads if ">tokens<" in head]
    assert with_tokens
    assert all(
        head.count(">tokens</th>") == head.count('>tokens</th><th scope="col">sequential</th>')
        for head in heads
    )


MARKUP = "</script></pre></title><script>alert(1)</script><img src=x onerror=alert(1)>$name ${x}"
HOSTILE = f"{MARKUP} \u202e\u0000\ud800 \x1b[2J"


def test_what_a_model_wrote_stays_text(tmp_path):
    points = figures(0.5)
    points["points"][0]["settings"] = {"<b>k</b>": "<img src=x>", "n": {"deep": ["<i>"]}}
    run = make_run(
        tmp_path / "<b>run",
        record(1, 0.5, summary=HOSTILE, proposer=HOSTILE, stamps=[HOSTILE], selection=points),
        record(2, status="refused", error=HOSTILE, parent=1),
        sources={1: PROGRAM.format(n=1) + f'"""{HOSTILE}"""\n# <i>\u202e\n', 2: HOSTILE},
    )
    text = write_report(run.path).read_text(encoding="utf-8")
    page = Page(text)
    # The page's own, and two blocks of data, which are no scripts.
    assert page.tags.count("script") == 3 == text.count("<script")
    assert not {"img", "i"} & set(page.tags)
    assert not set("\u202e\u0000\x1b") & set(text)
    assert r"\u202e" in page.text and r"\x1b[2J" in page.text and r"\ud800" in page.text
    assert "$name ${x}" in page.text
    assert page.text.count("alert(1)") > 10


def test_a_hypothesis_stands_with_its_verdict_and_what_it_rests_on(tmp_path):
    claim = {"claim": "tokens down 20% at beta 0.5", "outcome": "held", "before": 5.0, "after": 3.0}
    claim |= {"change": -0.4, "interval": [-0.5, -0.3], "units": 24, "of": "problems"}
    open_claim = claim | {
        "claim": "accuracy up 0.01",
        "outcome": "cannot tell",
        "change": None,
        "interval": None,
    }
    stated = {"text": "tokens down 20% at beta 0.5 because <votes> settle", "claims": [], "why": ""}
    verdict = {"outcome": "cannot tell", "claims": [claim, open_claim], "against": "round 1"}
    page = Page(
        report(
            tmp_path / "run",
            record(1, 0.5),
            record(2, 0.6, parent=1, partner=1, hypothesis=stated, verdict=verdict),
            # One that was refused has no verdict.
            record(3, status="refused", hypothesis=stated),
        )
    )
    assert page.text.count("because <votes> settle") == 4
    for told in ("? cannot tell", "✓ held", "-0.4 [-0.5, -0.3]", "24 problems", "against round 1"):
        assert told in page.text
    assert "from round 1 and round 1" in page.text
    assert "#hypotheses" in page.addresses


def test_what_a_round_was_held_against_is_told_and_what_the_choice_is_worth(tmp_path):
    race = {"part": "selection", "seeds": 5, "rival": 1, "gain": [0.1, -0.02, 0.22]}
    run = make_run(tmp_path / "run", record(1, 0.5, race=None), record(2, 0.6, race=race), winner=2)
    finalists = run.read("finalists.json")
    run.write("finalists.json", finalists | {"crossed": {"problems": 0.4567, "models": None}})
    text = Page(write_report(run.path).read_text(encoding="utf-8")).text
    assert "against round 1 hypervolume +0.100 [-0.020, +0.220] on the selection problems, 5 seeds" in text
    assert "0.457 on problems that had no part in the choice" in text


def test_a_round_that_was_dropped_is_told_as_far_as_it_got_and_never_ahead(tmp_path):
    text = report(
        tmp_path / "run",
        record(1, 0.5),
        record(2, 0.9, status="dropped", error="surely not among the best", selection=None),
        record(3, 0.9, status="dropped", error="surely not among the best"),
    )
    page = Page(text)
    assert "round 1 is ahead so far" in page.text
    box = re.search('<details class="one" id="round-2">.*?</details>', text, re.DOTALL)[0]
    assert "feedback: accuracy" in box and "selection: accuracy" not in box
    assert "dropped" in box and "Schedule" in box


def test_a_long_run_stays_a_small_file(tmp_path):
    numbers = range(1, 61)
    long = PROGRAM + "".join(f"# and so on, {k}\n" for k in range(600))
    records = [record(n, 0.4 + n / 1000, parent=n // 2 or None) for n in numbers]
    run = make_run(tmp_path / "run", *records, sources={n: long.format(n=n) for n in numbers})
    text = write_report(run.path).read_text(encoding="utf-8")
    assert len(text.encode()) < 2_000_000
    # What the best one descends from is there whole, others are left out.
    lines = [text.count(f'data-line="{line}"') for line in (1, 600)]
    assert lines[0] == lines[1] >= len((60, 30, 15, 7, 3, 1))
    assert text.count("Left out for room") == 60 - lines[0]
    assert text.count('<details class="one"') == 60


@pytest.mark.parametrize(
    ("records", "options", "told"),
    [
        ([], {"baselines": False}, "Nothing found yet: 0 rounds, none with a program fit to win"),
        ([], {}, "Nothing found yet"),
        ([record(1)], {"baselines": False}, "have not been measured yet"),
        ([record(1), record(2)], {}, "Nothing found yet: 2 rounds"),
        ([record(1), record(2)], {"winner": 0}, "Nothing was found: 2 rounds"),
        ([record(1, 0.5, monotone=False)], {"winner": 0}, "No program was fit to win"),
        (
            [record(1, 0.7)],
            {},
            "round 1 is ahead so far with hypervolume 0.700, against 0.580 of self consistency",
        ),
        ([record(1, 0.7)], {}, "The search has not finished"),
        ([record(1, 0.7)], {"winner": 1}, "The hold-out has not been looked at yet"),
        ([record(1, 0.7, parent=9)], {}, "a fresh start"),
        ([record(1, 0.7, parent=2), record(2, 0.8, parent=1)], {}, "Descent of round 2: 1 → 2."),
        ([record(7, 0.0, parent=7)], {"baselines": False}, "round 7 is ahead so far"),
    ],
)
def test_a_run_in_any_state_has_a_report(tmp_path, records, options, told):
    page = Page(report(tmp_path / "run", *records, **options))
    assert told in page.text


def test_a_single_problem_has_no_intervals(tmp_path):
    part = figures(0.5, hypervolume_ci=None)
    for point in part["points"]:
        point |= {"accuracy_ci": None, "tokens_ci": None, "settings": None}
    text = report(tmp_path / "run", record(1, 0.5, feedback=part, selection=part), baselines=False)
    assert "<td>75.0%</td>" in text
    assert 'class="whisker' not in text and 'class="ci"' not in text
    assert "Schedule" not in text


def test_a_program_of_fewer_branches_than_it_asked_for_is_marked(tmp_path):
    run = make_run(tmp_path / "run", record(1, 0.5))
    frame = run.episodes(1, "selection")
    frame.with_columns(granted=frame["asked"] - 7).write_parquet(run.folder(1) / "selection.parquet")
    assert (
        "not replayable on these stores, which lacked 7% of its branches"
        in write_report(run.path).read_text()
    )


def test_usage_adds_up_the_books(tmp_path):
    run = make_run(tmp_path / "run")
    for cost in (0.25, 0.5):
        run.record_call({"round": 1, "prompt_tokens": 1500, "completion_tokens": 200, "cost_usd": cost})
    assert "2: 3k tokens read, 400 written, $0.75" in write_report(run.path).read_text()
    run.record_call({"round": 2, "cost_usd": None})
    assert "3: 3k tokens read, 400 written, cost unknown" in write_report(run.path).read_text()


def damage(text):
    return lambda file: file.write_text(text)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("run.json", damage("{")),
        ("rounds/0001/round.json", damage("{")),
        ("rounds/0001/round.json", damage("[]")),
        ("rounds/0001", lambda folder: damage('{"round": 1}')(folder / "round.json")),
        ("rounds/0001/controller.py", lambda file: file.write_bytes(b"\xff\xfe")),
        ("rounds/0001/selection.parquet", damage("PAR1")),
        ("rounds/0001/feedback.parquet", damage("PAR1")),
        ("baselines/self_consistency/round.json", damage("null")),
        ("finalists.json", damage('{"winner": 8, "finalists": []}')),
        ("holdout.json", damage('{"headline": "x"}')),
    ],
)
def test_a_damaged_file_is_named_and_the_old_report_stays(tmp_path, name, harm):
    run = make_run(tmp_path / "run", record(1, 0.5), winner=1, holdout=True)
    before = write_report(run.path).read_bytes()
    harm(run.path / name)
    with pytest.raises(UserError) as error:
        write_report(run.path)
    # Where a round as a whole makes no sense its folder is named.
    assert name.removesuffix("/controller.py").removesuffix("/selection.parquet").removesuffix(
        "/feedback.parquet"
    ) in str(error.value)
    assert (run.path / "report.html").read_bytes() == before
    assert not list(run.path.glob(".new-*"))


def test_the_command_prints_where_the_report_is(tmp_path, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    run = make_run(tmp_path / "a run")
    assert autotts.main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out == f"{run.path / 'report.html'}\n"
    assert shown == []
    assert autotts.main(["report", str(run.path), "--open"]) == 0
    assert shown == [(run.path / "report.html").as_uri()]
    page = run.path / "report.html"
    for words in (["report", str(tmp_path / "nowhere")], ["report", str(page)]):
        assert autotts.main(words) == 2
        assert "no search run in" in capsys.readouterr().err
    assert autotts.main(["search", "--resume", "--out", str(page)]) == 2
    assert "no search run in" in capsys.readouterr().err
