"""Made-up search runs in any state, written with the archive's own writer, nothing evaluated."""

from pathlib import Path

from synthetic import episodes

from search_agent.archive import Run

PROGRAM = '''"""Reads {n} branches."""


def schedule(beta):
    return {{"n": {n}, "share": 0.5}}


async def solve(ep, n, share):
    ids = await ep.branch(n, probe=False)
    await ep.finish(ids)
    return ep.answer[ids[0]]
'''
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
BASELINES = (
    "adaptive_consistency",
    "confidence_momentum",
    "early_stopping_consistency",
    "parallel_probe",
    "self_consistency",
)
HEADLINE = (
    "round 2: the accuracy of self-consistency at 16 for 38% of its tokens [29, 51]; 17 problems decide this"
)
USAGE = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "cost_usd": 0.0}


def figures(hypervolume: float, **changes) -> dict:
    """What `score` returns: accuracy and tokens rise with beta."""
    points = [
        {
            "beta": beta,
            "accuracy": 0.4 + hypervolume / 2 + beta / 10,
            "accuracy_ci": [0.3 + beta / 10, 0.8 + beta / 10],
            "tokens": 20_000 * 20**beta,
            "tokens_ci": [18_000 * 20**beta, 23_000 * 20**beta],
            "sequential_tokens": 9_000.0 + 1000 * beta,
            "settings": {"n": 1 + round(15 * beta), "share": 0.5},
        }
        for beta in BETAS
    ]
    interval = [hypervolume - 0.05, hypervolume + 0.05]
    made = {
        "hypervolume": hypervolume,
        "hypervolume_ci": interval,
        "points": points,
        "errors": 0,
        "error": "",
    }
    return made | {"monotone": True} | changes


def record(number: int, hypervolume: float | None = None, **changes) -> dict:
    """A round's record: evaluated if it has a hypervolume, else failed."""
    status = "failed" if hypervolume is None else "evaluated"
    part = None if hypervolume is None else figures(hypervolume)
    return {
        "round": number,
        "parent": None,
        "partner": None,
        "hypothesis": None,
        "name": f"round {number}",
        "proposer": "openai",
        "summary": f"Idea {number}.",
        "stamps": [],
        "status": status,
        "error": "" if part else "the model refused",
        "usage": USAGE,
        "memo": {},
        "feedback": part,
        "selection": part,
        "monotone": part and True,
    } | changes


def make_run(path: Path, *records: dict, sources=None, baselines=True, winner=None, holdout=False) -> Run:
    """A run of these rounds, finished if there is a `winner` (0 = finished without one).

    `sources` are programs by round; without them evaluated rounds get one each.
    """
    config = {
        "stores": [{"path": f"/stores/{m}", "model": m, "dataset": "aime24", "contents": "0"} for m in "ab"],
        "holdout": [{"path": f"/stores/{m}", "model": m, "dataset": "aime24", "contents": "0"} for m in "ab"],
        "problems": {"feedback": ["p0"], "selection": ["p1", "p2"], "holdout": ["p3"]},
        "proposer": {"name": "openai", "settings": {"model": "some-model"}},
        "seeds": 20,
        "final_seeds": 100,
        "folds": 3,
        "protocol": "standard",
        "probe_tokens": 20,
        "seed": 0,
        "options": {},
    }
    run = Run.create(path, config, {"rounds": len(records), "minutes": None})
    frame = episodes([[True], [False]], isolation="strict", level="A")
    for each in records:
        number, scored = each["round"], each["selection"] is not None
        source = (sources or {}).get(number, PROGRAM.format(n=number) if scored else None)
        parts = (frame, frame) if scored else (None, None)
        run.add(number, each, source, *parts)
    levels = {name: figures(0.5 + i / 50) for i, name in enumerate(BASELINES)}
    if baselines:
        for name, part in levels.items():
            run.add(name, record(0, 0.5) | {"name": name, "feedback": part, "selection": part}, "")
    if winner is not None:
        finalists = (
            [{"round": winner, "name": f"round {winner}", "selection": figures(0.6)}] if winner else []
        )
        document = {"seeds": 100, "winner": winner or None, "finalists": finalists, "baselines": []}
        run.write("finalists.json", document)
    if holdout:
        rows = [
            {"controller": name, **part}
            for name, part in {f"round {winner}": figures(0.62), **levels}.items()
        ]
        looks = {f"/stores/{m}": "evaluated 6 times (6 different programs)" for m in "ab"}
        document = {
            "winner": winner,
            "seeds": 100,
            "problems": 1,
            "rows": rows,
            "headline": HEADLINE,
            "looks": looks,
        }
        run.write("holdout.json", document)
    return run
