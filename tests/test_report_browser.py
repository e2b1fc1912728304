"""The report in a real browser: what its scripts do, by keyboard, and that hostile words do nothing."""

import re
import shutil
import sys
from collections import Counter

import pytest
from measured_run import PROGRAMS, STEPS, make, voting

from search_agent.report import write_report
from search_agent.report.episodes import episodes
from search_agent.report.outcomes import outcomes
from search_agent.report.view import View

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="untrusted code is run on Linux only")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ATTACK = "</script></pre><script>hacked = 1</script><img src=x onerror='hacked = 1'>\u202e{{7}}${hacked = 1}"


@pytest.fixture(scope="module")
def browser():
    """Playwright's own Chromium, else one of the system."""
    reason = "needs a browser: pip install -e '.[browser]' && playwright install --with-deps chromium"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as started:
        system = next(filter(None, map(shutil.which, BROWSERS)), None)
        for path in (None, system):
            try:
                opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
            except playwright.Error:
                continue
            yield opened
            opened.close()
            return
        pytest.skip(reason)


class Opened:
    """A page, and all that it asked for or complained of."""

    def __init__(self, browser, path, fragment=""):
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.asked, self.complaints = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(path.as_uri() + fragment)

    def text(self, selector):
        return self.page.locator(selector).all_inner_texts()

    def quiet(self):
        return len(self.asked) == 1 and not self.complaints


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("browser"))
    write_report(made.path)
    return made


@pytest.fixture(scope="module")
def opened(browser, run):
    return Opened(browser, run.path / "report.html", "#round-1")


def test_it_asks_for_nothing_complains_of_nothing_and_opens_a_linked_round(opened):
    assert opened.quiet(), (opened.asked, opened.complaints)
    assert opened.page.locator("#round-1").get_attribute("open") == ""
    assert opened.text("nav a") == ["Frontiers", "Progress", "Lineage", "Outcomes", "Episodes", "Rounds"]


def test_the_frontiers_are_stepped_through(opened):
    page = opened.page
    page.focus("#trails-at")
    wide = page.locator("#trails svg.wide")
    assert wide.locator(".r2.now").count() == 1 and wide.locator(".later").count() == 0
    page.keyboard.press("ArrowLeft")
    assert wide.locator(".r1.now.ahead").count() == 1 and wide.locator(".r2.later").count() == 1
    assert not wide.locator(".r2").is_visible()
    assert opened.text("#trails-told")[0].startswith("round 1, hypervolume")


def test_the_matrix_shows_the_beta_and_the_part_that_were_chosen(opened, run):
    page, told = opened.page, outcomes(run, View.of(run.path))

    def expected(part, beta):
        rows = [row for row in told["rows"] if row["part"] == part]
        return [
            [f"{row['store']} {row['problem']}", *(str(each[beta][0]) for each in row["cells"])]
            for row in rows
        ]

    def shown():
        return [row.split("\t") for row in opened.text(".outcomes tbody tr")]

    assert shown() == expected("feedback", 2)
    page.get_by_role("radio", name="0.5", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert shown() == expected("feedback", 4)
    page.get_by_role("radio", name="selection").check()
    assert shown() == expected("selection", 4)
    title = page.locator(".outcomes td").first.get_attribute("title")
    assert re.search(r"toy, q\d\d: \d+% of 3 episodes, [\d.k]+ tokens, [\d.k]+ on the critical path", title)


def votes(played):
    """What the branches that were not pruned showed last, from the log itself."""
    last, pruned = {}, set()
    for action in (action for each in played["rounds"] for action in each["actions"]):
        spans = (span.partition("-") for span in action["ids"].split(","))
        ids = [n for first, _, last_one in spans for n in range(int(first), int(last_one or first) + 1)]
        if action["do"] == "prune":
            pruned |= set(ids)
            continue
        answers = action["answer"] if isinstance(action["answer"], list) else [action["answer"]] * len(ids)
        last |= {n: answer for n, answer in zip(ids, answers, strict=True) if answer is not None}
    return Counter(chr(65 + answer) for n, answer in last.items() if n not in pruned)


def pane(opened, side):
    return opened.page.locator(".pane").nth(side)


def test_two_programs_are_played_side_by_side_on_the_same_episode(opened, run):
    page, told = opened.page, episodes(run, View.of(run.path))
    for number, episode in enumerate(told["episodes"]):
        page.locator("#episodes-here select").nth(0).select_option(str(number))
        for side, program in ((0, 0), (1, 1), (1, 2)):
            page.locator("#episodes-here select").nth(1 + side).select_option(str(program))
            played, here = episode["runs"][program], pane(opened, side)
            assert here.locator("h4").inner_text() == told["programs"][program]
            assert ("right" if played["correct"] else "wrong") in here.locator(".meta").first.inner_text()
            assert (
                f"after {len(played['rounds'])} of {len(played['rounds'])} rounds"
                in here.locator(".now").inner_text()
            )
            # A board of votes counts what the log says, and the tokens are those of the books.
            letters, counts = (
                here.locator(".votes b").all_inner_texts(),
                here.locator(".votes span").all_inner_texts(),
            )
            assert dict(zip(letters, map(int, counts), strict=True)) == votes(played)
            total = played["spent"]["decode"] + played["spent"]["probe"]
            in_words = here.locator(".now").evaluate(
                "(node, total) => node.textContent.includes(`: ${short(total)} tokens`)", total
            )
            assert in_words


def test_an_episode_is_stepped_through_by_keyboard_branch_by_branch(opened, run):
    page = opened.page
    # Round 2 opens branches and probes them, prunes one, and reads on. Twice, for one clock ticks in both.
    for select in range(3):
        page.locator("#episodes-here select").nth(select).select_option("0")
    here = pane(opened, 0)
    page.get_by_role("button", name="to the beginning").click()
    assert "after 0 of" in here.locator(".now").inner_text()
    assert here.locator(".lanes .done").count() == 0 and here.locator(".votes b").count() == 0
    page.focus("#player-at")
    page.keyboard.press("ArrowRight")
    assert "after 1 of" in here.locator(".now").inner_text()
    assert here.locator(".round-told").inner_text().startswith("Round 1 of")
    first = here.locator(".lanes .done").count()
    assert first > 0
    page.keyboard.press("ArrowRight")
    assert here.locator(".lanes .done").count() > first
    told = here.locator(".round-told").inner_text()
    assert "prune 0" in told and "note: pruned one" in told
    here.locator(".lanes").focus()
    page.keyboard.press("ArrowDown")
    branch = here.locator(".branch-told").inner_text()
    assert branch.startswith("Branch 0\nround 1: +") and branch.endswith("round 2: pruned")
    page.keyboard.press("ArrowDown")
    assert here.locator(".branch-told").inner_text().startswith("Branch 1\n")
    page.locator("#player-play").press("Enter")
    page.locator("#player-play", has_text="Play").wait_for()
    now = here.locator(".now").inner_text()
    assert re.match(r"after (\d+) of \1 rounds", now) and re.search("right|wrong", now)
    assert opened.quiet(), opened.complaints


def test_what_programs_and_models_wrote_runs_nowhere(browser, tmp_path):
    claim = {"claim": ATTACK, "outcome": ATTACK, "before": 1.0, "after": 1.0, "change": 0.1, "interval": None}
    claim |= {"units": 3, "of": ATTACK}
    hostile = voting(3, probe=True, prunes=True, steps=STEPS, note=ATTACK) + f"\n# {ATTACK}\n"
    failing = voting(2, steps=f"raise ValueError({ATTACK!r})")
    named = hostile.replace('return {"n"', f'return {{{ATTACK!r}: 1, "n"').replace("(ep, n)", "(ep, n, **_)")
    run = make(
        tmp_path,
        {**PROGRAMS, 1: failing, 2: named},
        summary=ATTACK,
        error=ATTACK,
        proposer=ATTACK,
        stamps=[ATTACK],
        hypothesis={"text": ATTACK, "claims": [], "why": ATTACK},
        verdict={"outcome": ATTACK, "against": ATTACK, "claims": [claim]},
    )
    head = run.path / "run.json"
    head.write_text(head.read_text().replace('"model": "toy"', '"model": "<img src=x onerror=hacked=1>"'))
    hostile_page = Opened(browser, write_report(run.path))
    page = hostile_page.page
    told = ""
    left = page.locator("#episodes-here select").nth(1)
    for option in range(left.locator("option").count()):
        left.select_option(str(option))
        page.get_by_role("button", name="to the beginning").click()
        for _ in range(3):
            page.get_by_role("button", name="one step on").click()
            told += page.locator(".pane").first.inner_text()
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("img").count() == 0
    # The page's own script and its three blocks of data.
    assert page.locator("script").count() == 4
    assert "note: </script></pre><script>hacked = 1</script><img src=x" in told
    assert hostile_page.text("blockquote")[0].startswith("</script></pre><script>hacked = 1")
    assert "\u202e" not in page.content()
    assert hostile_page.quiet(), (hostile_page.asked, hostile_page.complaints)
    # What would run, would run: the policy stops what is added by hand.
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'hacked = 1'}))"
    )
    assert page.evaluate("typeof hacked") == "undefined" and hostile_page.complaints
