"""The Gymnasium environments: one against the other, by Gymnasium's own checks, and by what users expect."""

from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st

import autotts
from env.errors import UserError
from env.gym import ReplayEnv, ReplayVectorEnv
from env.gym_table import FIRST_SEED
from env.store import Store
from env.store_writer import Nodes, StoreWriter
from tests.forests import InMemory, Trees, recordings, stored, trees

ID = "autotts:AutoTTS/Replay-v0"


def chain(*answers: str | None, tokens: int = 100, end: str = "") -> list[tuple]:
    """A branch: one probed segment an answer, then a last one that ends with `end`."""
    return [(tokens, a, 0) for a in answers] + [(tokens, end or answers[-1], 1)]


BRANCHES = [
    chain("1", "2"),
    chain("2", "2", "2"),
    chain("1", "1", "1", "1", tokens=50),
    chain("3", "2"),
    chain("2", "1", tokens=70),
    chain("1", "2", "1"),
    chain("2", "2", "2", tokens=90),
    chain(None, "1", end="1"),
]


def write(path, problems: dict[str, list[list[tuple]]], golds: list[str]) -> str:
    with StoreWriter(path, model="m", dataset="d", task="exact", segment_tokens=100) as store:
        for (question, branches), gold in zip(problems.items(), golds, strict=True):
            parent, rows = [], []
            for branch in branches:
                parent += [-1, *range(len(rows), len(rows) + len(branch) - 1)]
                rows += branch
            tokens, answer, end = zip(*rows, strict=True)
            probed = [not e for e in end]
            store.add_problem(question, gold, Nodes(parent, tokens, list(answer), probed, end))
    return str(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """Three problems of eight chains each."""
    orders = {f"question {k}": BRANCHES[k:] + BRANCHES[:k] for k in range(3)}
    return write(tmp_path_factory.mktemp("gym") / "store", orders, ["2", "1", "3"])


@pytest.fixture(scope="module")
def tree_path(tmp_path_factory) -> str:
    """A problem of four trees that fork twice, with PRM scores and confidence."""
    path = tmp_path_factory.mktemp("gym") / "trees"
    parent, end = [], []
    for _ in range(4):
        root = len(parent)
        parent += [-1, root, root, root + 1, root + 1, root + 2, root + 2]
        end += [0, 0, 0, 1, 1, 1, 2]
    count = len(parent)
    rng = np.random.default_rng(0)
    answers = [str(k) for k in rng.integers(0, 3, count)]
    scores = [list(rng.random(2)) for _ in range(count)]
    with StoreWriter(path, model="m", dataset="d", task="exact", prm="prm") as store:
        nodes = Nodes(
            parent,
            [10 + k for k in range(count)],
            answers,
            [True] * count,
            end,
            prm=scores,
            confidence=rng.random(count),
        )
        store.add_problem("question", "1", nodes)
    return str(path)


def play(env, choose, **reset) -> tuple[float, dict, list]:
    """One episode; the return, the last info, and everything seen."""
    observation, info = env.reset(**reset)
    total, seen, over = 0.0, [(observation, info)], False
    while not over:
        observation, reward, over, truncated, info = env.step(choose(observation))
        assert not truncated and observation in env.observation_space
        total += reward
        seen.append((observation, reward, info))
    return total, info, seen


def at_random(seed: int):
    rng = np.random.default_rng(seed)
    return lambda observation: int(rng.choice(np.flatnonzero(observation["action_mask"])))


def by_name(env, *names: str):
    numbers = iter([env.unwrapped.actions.index(name) for name in names])
    return lambda observation: next(numbers)


def agree(store, protocol: str, seed: int, max_branches: int | None, steps: int, lawless: float) -> None:
    """As many plain environments and a vector one, step by step on the same random actions."""
    kwargs = {"protocol": protocol, "max_branches": max_branches, "probe_tokens": 7, "gamma": 0.3}
    plain = SyncVectorEnv([lambda: ReplayEnv(store, **kwargs)] * 3)
    fast = ReplayVectorEnv(3, store, **kwargs)
    assert plain.observation_space == fast.observation_space and plain.action_space == fast.action_space
    assert plain.metadata["autoreset_mode"] == fast.metadata["autoreset_mode"]
    rng = np.random.default_rng(seed)
    results = plain.reset(seed=seed), fast.reset(seed=seed)
    for _ in range(steps):
        assert data_equivalence(*results, exact=True)
        masks = results[1][0]["action_mask"]
        assert (fast.action_masks() == masks).all() and masks.any(axis=1).all()
        masks = np.where(rng.random((3, 1)) < lawless, 1, masks)
        # Answering is one action of many in a large store; here it must not end every episode at once.
        weights = masks * np.where(np.arange(masks.shape[1]) == 0, 0.1, 1.0)
        actions = np.array([rng.choice(len(w), p=w / w.sum()) for w in weights])
        results = plain.step(actions), fast.step(actions)
    assert data_equivalence(*results, exact=True)
    assert plain.np_random_seed == fast.np_random_seed


class TestVectorAgreesWithPlain:
    @settings(max_examples=120, deadline=None)
    @given(trees(), st.integers(0, 2**20), st.sampled_from((None, 1, 2, 5)))
    def test_on_any_trees(self, made: Trees, seed, max_branches):
        agree(InMemory(made.forest()), "standard", seed, max_branches, 25, 0.1)

    @settings(max_examples=40, deadline=None)
    @given(recordings(), st.integers(0, 2**20))
    def test_under_the_published_protocol(self, branches, seed):
        agree(InMemory(stored(branches).forest()), "published", seed, None, 25, 0.1)

    def test_on_a_store(self, path):
        agree(path, "standard", 1, None, 150, 0.0)

    def test_a_reset_in_place_of_the_next_step(self, path):
        """Where the last step ended an episode, the step after the reset belongs to the new one."""
        envs = ReplayVectorEnv(2, path)
        envs.reset(seed=0)
        envs.step(np.array([0, 1]))
        envs.reset(seed=1)
        assert (envs.step(np.array([1, 1]))[0]["state"][:, 0] == 1).all()

    def test_with_an_episode_chosen_for_each(self, path):
        fast = ReplayVectorEnv(2, path)
        openings = fast.actions.index("open 4"), fast.actions.index("finish all")
        fast.reset(options={"problem": [0, 2], "seed": [8, 9]})
        together = [fast.step(np.array([action] * 2))[0] for action in openings][-1]
        for k, problem in enumerate((0, 2)):
            plain = ReplayEnv(path)
            plain.reset(options={"problem": problem, "seed": 8 + k})
            alone = [plain.step(action)[0] for action in openings][-1]
            assert data_equivalence({name: values[k] for name, values in together.items()}, alone, exact=True)


class TestGymnasium:
    def test_its_checks_pass_without_a_warning(self, path):
        check_env(gymnasium.make(ID, store=path).unwrapped)

    def test_its_checks_pass_with_every_capability(self, tree_path):
        check_env(gymnasium.make(ID, store=tree_path).unwrapped)

    def test_a_vector_of_them_is_made_by_name(self, path):
        envs = gymnasium.make_vec(ID, num_envs=4, vectorization_mode="vector_entry_point", store=path)
        assert isinstance(envs.unwrapped, ReplayVectorEnv)
        assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        envs = RecordEpisodeStatistics(envs)
        rng = np.random.default_rng(0)
        observation, _ = envs.reset(seed=0)
        ended = 0
        for _ in range(200):
            actions = [rng.choice(np.flatnonzero(mask)) for mask in observation["action_mask"]]
            observation, _, terminated, _, info = envs.step(np.array(actions))
            assert observation in envs.observation_space
            for k in np.flatnonzero(terminated):
                ended += 1
                earned = float(info["correct"][k]) - 0.001 * info["tokens"][k] / 1000
                assert info["episode"]["r"][k] == pytest.approx(earned)
        assert ended > 4


class TestEpisodes:
    def test_the_return_is_the_grade_less_the_price_of_the_tokens(self, path):
        env = ReplayEnv(path, gamma=0.5)
        for seed in range(40):
            total, info, _ = play(env, at_random(seed), seed=seed)
            assert total == pytest.approx(info["correct"] - 0.5 * info["tokens"] / 1000)
            assert info["seed"] >= FIRST_SEED

    def test_only_paid_for_and_revealed_things_show(self, tmp_path, path):
        """Other right answers, and other continuations of what was not read, look the same until the end."""
        opened = ("open 4", "probe all", "extend 1", "probe all", "prune 2")
        other = [chain(*[a for _, a, _ in branch[:2]], "9", "8", tokens=branch[0][0]) for branch in BRANCHES]
        problems = {f"question {k}": other[k:] + other[:k] for k in range(3)}
        seen = []
        for store in (path, write(tmp_path / "other", problems, ["9", "9", "9"])):
            env = ReplayEnv(store)
            choose = by_name(env, *opened, "answer")
            seen.append(play(env, choose, seed=3, options={"problem": 0, "seed": 5})[2])
        for (*one, info), (*two, other_info) in zip(seen[0][:-1], seen[1][:-1], strict=True):
            assert info.keys() == other_info.keys() == {"action_mask"}
            assert data_equivalence(one, two, exact=True)

    def test_a_tie_goes_to_the_branch_opened_first(self, tmp_path):
        path = write(tmp_path / "tie", {"q": [chain("5", "5"), chain("7", "7")] * 2}, ["7"])
        env = ReplayEnv(path)
        for seed in range(8):
            _, info, seen = play(
                env, by_name(env, "open 2", "finish all", "answer"), options={"problem": 0, "seed": seed}
            )
            observation, _, _ = seen[-2]
            first, second = observation["answer"][:2]
            assert observation["lead"].tolist() == ([1, 1] if first != second else [2, 0])
            env.reset(options={"problem": 0, "seed": seed})
            env.step(env.actions.index("open 1"))
            env.step(env.actions.index("finish all"))
            assert env.step(0)[4]["correct"] == info["correct"]

    def test_what_the_mask_rules_out_does_nothing(self, path):
        env = ReplayEnv(path)
        before, _ = env.reset(seed=0)
        ruled_out = np.flatnonzero(before["action_mask"] == 0)
        for action in ruled_out:
            after, reward, terminated, _, _ = env.step(int(action))
            assert data_equivalence(before, after, exact=True) and reward == 0 and not terminated

    def test_opens_no_more_than_the_ceiling(self, path):
        env = ReplayEnv(path, max_branches=3)
        env.reset(seed=0)
        for name in ("open 2", "open 1", "open 1", "open 2"):
            observation, *_ = env.step(env.actions.index(name))
        assert (observation["state"] > 0).sum() == 3 and observation["room"] == 0
        assert "open 4" not in env.actions

    def test_draws_from_the_problems_it_is_given(self, path):
        names = Store.open(path).problems["question_hash"].to_pylist()
        env = ReplayEnv(path, problems=names[1:])
        drawn = {play(env, at_random(k), seed=k)[1]["problem"] for k in range(30)}
        assert drawn == set(names[1:])
        _, info, _ = play(env, at_random(0), options={"problem": names[0], "seed": 77})
        assert (info["problem"], info["seed"]) == (names[0], 77)

    def test_shows_branches_as_text(self, path):
        env = gymnasium.make(ID, store=path, render_mode="ansi")
        env.reset(seed=0)
        for name in ("open 2", "probe all", "prune 0"):
            env.step(env.unwrapped.actions.index(name))
        lines = env.render().splitlines()
        assert len(lines) == 4 and "pruned" in lines[1] and "running" in lines[2] and "40 probe" in lines[3]


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"max_branches": 0}, "at least 1"),
            ({"protocol": "Standard"}, "no protocol"),
            ({"problems": ["nonsense"]}, "none of the 1 problems"),
            ({"store": "nowhere"}, "nowhere"),
        ],
    )
    def test_in_making_one(self, path, change, text):
        for make in (ReplayEnv, lambda **kwargs: ReplayVectorEnv(2, **kwargs)):
            with pytest.raises(UserError, match=text):
                make(**{"store": path} | change)

    @pytest.mark.parametrize(
        ("options", "text"),
        [({"problem": 3}, "0 to 2"), ({"problem": "x"}, "0 to 2"), ({"sede": 1}, "'problem' and 'seed'")],
    )
    def test_in_choosing_an_episode(self, path, options, text):
        for env in (ReplayEnv(path), ReplayVectorEnv(2, path)):
            with pytest.raises(UserError, match=text):
                env.reset(options=options)

    def test_in_stepping(self, path):
        env, envs = ReplayEnv(path), ReplayVectorEnv(2, path)
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)
        with pytest.raises(gymnasium.error.ResetNeeded):
            envs.step(np.zeros(2, int))
        env.reset(seed=0)
        envs.reset(seed=0)
        with pytest.raises(gymnasium.error.InvalidAction):
            env.step(len(env.actions))
        with pytest.raises(gymnasium.error.InvalidAction):
            envs.step(np.array([0, len(envs.actions)]))
        env.step(0)
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)
        with pytest.raises(UserError, match="3 seeds for 2"):
            envs.reset(seed=[1, 2, 3])


class Door:
    """The `ep` of a controller, as far as two of the published ones use it, on the Gymnasium environment."""

    def __init__(self, env: ReplayEnv, **episode) -> None:
        self.env = env
        self.answer: list[int | None] = []
        self.done: list[str | None] = []
        self.total, self.info = 0.0, {}
        env.reset(options=episode)

    def act(self, name: str) -> dict:
        observation, reward, _, _, self.info = self.env.step(self.env.actions.index(name))
        self.total += reward
        opened = int((observation["state"] > 0).sum())
        self.answer[:] = [None if a == -2 else a for a in observation["answer"][:opened].tolist()]
        self.done[:] = [None if state == 1 else state for state in observation["state"][:opened].tolist()]
        return observation

    async def branch(self, n: int, probe: bool = True) -> list[int]:
        self.act(f"open {n}")
        if probe:
            self.act("probe all")
        return list(range(n))

    async def extend(self, ids: list[int]) -> list[int]:
        assert list(ids) == [i for i, end in enumerate(self.done) if end is None]
        self.act("extend all")
        self.act("probe all")
        return [i for i in ids if self.done[i] is None]

    async def sample(self, n: int) -> list[int]:
        self.act(f"open {n}")
        self.act("finish all")
        return list(range(n))

    def prune(self, ids) -> None:
        for i in ids:
            self.act(f"prune {i}")


@pytest.mark.parametrize(
    ("name", "settings_"),
    [
        ("self_consistency", {"max_branches": 4}),
        ("parallel_probe", {"max_branches": 4, "warm_up": 0, "patience": 1, "stability": 3}),
    ],
)
@pytest.mark.parametrize("protocol", ["standard", "published"])
def test_a_controller_gets_the_same_through_both_doors(path, name, settings_, protocol):
    program = autotts.program(name)
    frame = autotts.evaluate(
        [Store.open(path)], [program], betas=[1.0], settings=settings_, seeds=range(6), protocol=protocol
    ).frame
    assert frame["error"].unique().to_list() == [""] and frame["correct"].n_unique() == 2
    functions = program.load()
    env = ReplayEnv(path, protocol=protocol, gamma=0.25)
    for row in frame.iter_rows(named=True):
        door = Door(env, problem=row["problem"], seed=row["seed"])
        solving = functions["solve"](door, **functions["schedule"](1.0) | settings_)
        with pytest.raises(StopIteration) as stopped:
            solving.send(None)
        observation = door.act("answer")
        assert stopped.value.value == row["answer"] == observation["answer"][observation["votes"].argmax()]
        assert (door.info["correct"], door.info["tokens"]) == (row["correct"], row["tokens"])
        assert door.total == pytest.approx(row["correct"] - 0.25 * row["tokens"] / 1000)
        decode, probe, _, _ = np.round(1000 * observation["spent"].astype(float))
        assert (decode, probe) == (row["decode"], row["probe"])
        if name == "self_consistency":
            # Here all wait for the last to open; a sample is one round.
            assert door.info["sequential_tokens"] >= row["sequential"] > 0


@pytest.mark.skipif(find_spec("sb3_contrib") is None, reason="needs sb3-contrib: pip install '.[rl]'")
@pytest.mark.filterwarnings("default")
def test_maskable_ppo_learns_on_it(tmp_path):
    import torch
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.maskable.evaluation import evaluate_policy

    torch.set_num_threads(1)
    problems = {f"question {k}": [chain("4", "4", "4", tokens=500)] * 8 for k in range(3)}
    env = gymnasium.make(ID, store=write(tmp_path / "easy", problems, ["4"] * 3), gamma=0.1)
    model = MaskablePPO(
        "MultiInputPolicy", env, n_steps=256, batch_size=128, n_epochs=6, seed=0, device="cpu"
    )
    before, _ = evaluate_policy(model, env, n_eval_episodes=40, deterministic=False, warn=False)
    model.learn(3072)
    after, _ = evaluate_policy(model, env, n_eval_episodes=40, deterministic=False, warn=False)
    # One branch probed once is the right answer for 0.95.
    assert after > max(before, 0.5)
