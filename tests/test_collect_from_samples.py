"""Stores made of stores: other PRM scores; probes and log probabilities of branches that are there."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from collect.collection import Scoring
from collect.existing import Existing, branches_of, of_arm
from collect.from_samples import check_text
from collect.reading import Known, ReadTree, grow
from collect.recovering import recover
from collect.rescore import Rescoring
from collect.segments import EveryTokens
from env.errors import UserError
from env.nodes import Nodes
from env.schema import StoreError
from env.store import Store
from env.store_writer import StoreWriter

# A fork after two segments of the first branch, and a chain.
PARENT = [-1, 0, 1, 1, -1]
TREE = Nodes(
    parent=PARENT,
    tokens=[2, 2, 2, 3, 4],
    answer=[None, "7", "1", "2", "1"],
    probed=[False, True, False, False, False],
    end=[0, 0, 1, 2, 1],
    probe_tokens=[-1, 3, -1, -1, -1],
    text=["ab", "cd", "ef", "ghi", "jkl"],
    token_ids=[[97, 98], [99, 100], [101, 102], [103, 104, 105], [106, 107, 108, 0]],
)


class Letters:
    """A tokenizer for which each letter is a token."""

    ends = (0,)
    model = "letters"

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids, start: int = 0) -> str:
        return "".join(chr(token) for token in ids[start:] if token)


class NoThinking:
    def close_of(self, ids):
        return None


class Hashing:
    """A scorer whose scores follow from the texts of a path."""

    name, kind, context = "hashing", "test", None

    def __init__(self, salt: str = "") -> None:
        self.steps = self.unscored = self.tokens = self.calls = 0
        self.salt, self.is_closed = salt, False

    def score(self, items):
        self.calls += 1
        return [
            [self._score(question, steps[: n + 1]) for n in range(len(steps))] for question, steps in items
        ]

    def _score(self, question, steps) -> float:
        digest = hashlib.sha256(repr((self.salt, question, list(steps))).encode()).digest()
        return float(np.float32(digest[0] / 255))

    def close(self) -> None:
        self.is_closed = True


def scoring_by(scorer, **recipe) -> Scoring:
    return Scoring(lambda: scorer, {"model": scorer.name, "salt": scorer.salt, **recipe}, "\n", scorer.name)


def write(path: Path, count: int = 3, nodes: Nodes = TREE, **options) -> Store:
    with StoreWriter(path, model="letters", dataset="d", task="exact", **options) as writer:
        for number in range(count):
            writer.add_problem(f"q{number}", "1", nodes)
    return Store.open(path)


def tables(store: Store, without: str = "") -> pa.Table:
    """All nodes of a store, perhaps without a column."""
    table = pa.concat_tables([store.read(name) for name in store.shards("nodes")])
    return table.drop_columns([without]) if without else table


def test_branches_get_their_names_back():
    found = [(branch.path, branch.nodes, branch.parent) for branch in branches_of(PARENT)]
    assert found == [((0,), [0, 1, 2], -1), ((0, 2, 1), [3], 1), ((1,), [4], -1)]


def test_a_store_is_read_problem_by_problem(tmp_path):
    write(tmp_path / "s", 5, shard_nodes=8)
    existing = Existing(tmp_path / "s")
    assert len(existing.store.shards("nodes")) == 3
    for number in (4, 0, 2, 3, 1):
        nodes = existing.nodes(number)
        assert existing.problems[number].question == f"q{number}"
        assert nodes.text == TREE.text and nodes.token_ids == TREE.token_ids and nodes.answer == TREE.answer
        assert nodes.parent.tolist() == PARENT and nodes.probe_tokens.tolist() == TREE.probe_tokens
        assert nodes.prm is None and nodes.logprob is None


def test_the_arms_of_a_tree(tmp_path):
    arms = replace(TREE, arm=[0, 0, 0, 0, 1])
    write(tmp_path / "s", 1, arms, arms=[{"model": "a"}, {"model": "b"}])
    nodes = Existing(tmp_path / "s").nodes(0)
    assert of_arm(nodes, 0).text == ["ab", "cd", "ef", "ghi"]
    assert of_arm(nodes, 1).parent.tolist() == [-1] and of_arm(nodes, 1).text == ["jkl"]
    with pytest.raises(UserError, match="branches of several arms"):
        of_arm(Nodes([-1, 0], [1, 1], ["1", "1"], [0, 0], arm=[0, 1]), 0)


def test_token_ids_are_stored_or_made_of_texts_that_have_as_many():
    exact = recover(Letters(), TREE)
    assert [each.ids for each in exact] == [list(b"abcdef"), list(b"abcdghi"), [106, 107, 108, 0]]
    assert all(each.exact for each in exact)
    made = recover(Letters(), replace(TREE, token_ids=None))
    # The token that ended the last branch is in no text.
    assert [each.ids for each in made] == [list(b"abcdef"), list(b"abcdghi"), list(b"jkl")]
    assert not any(each.exact for each in made)
    lumped = replace(TREE, token_ids=None, text=[None, None, "abcdef", "ghi", "jk"])
    assert [each.ids for each in recover(Letters(), lumped)] == [list(b"abcdef"), None, None]
    assert [each.reason for each in recover(Letters(), lumped)][1:] == [
        "of 7 tokens has a text of 3",
        "of 4 tokens has a text of 2",
    ]
    nothing = recover(Letters(), replace(TREE, token_ids=None, text=None))
    assert {each.reason for each in nothing} == {"has neither token ids nor a text"}
    with pytest.raises(UserError, match="a segment of 2 tokens has 1 token ids"):
        recover(Letters(), replace(TREE, token_ids=[[97], *TREE.token_ids[1:]]))


def test_another_tokenizer_is_noticed():
    check_text(Letters(), TREE)
    check_text(Letters(), replace(TREE, token_ids=None))
    with pytest.raises(UserError, match="it reads 'xb' where the store has 'ab'"):
        check_text(Letters(), replace(TREE, token_ids=[list(b"xb"), *TREE.token_ids[1:]]))


def test_segments_stay_as_they_are():
    stored = replace(TREE, logprob=[-1, -2, np.nan, -3, -4])
    tree = grow(ReadTree(None, stored=stored), recover(Letters(), stored), None, NoThinking())
    assert tree.sources == [0, 1, 2, 3, 4] and tree.branches[1].path == (0, 2, 1)
    tree.branches[0] = replace(tree.branches[0], logprobs=np.full(6, -5, np.float32))
    rows = tree.rows(Letters(), 10)
    for name in ("parent", "tokens", "answer", "probed", "end", "probe_tokens", "text", "token_ids"):
        assert list(getattr(rows, name)) == list(getattr(stored, name)), name
    # What is known stays, what is not is found out.
    assert rows.logprob == [-1, -2, -5, -3, -4] and rows.confidence is None


def test_segments_are_cut_anew_but_not_where_forks_begin():
    stored = replace(TREE, logprob=[-1, -2, -3, -4, -5], token_ids=None)
    tree = grow(ReadTree(None, stored=stored), recover(Letters(), stored), EveryTokens(3), NoThinking())
    rows = tree.rows(Letters(), 10)
    assert rows.parent == [-1, 0, 1, 1, 3, -1, 5] and rows.tokens == [3, 1, 2, 2, 1, 3, 1]
    assert rows.text == ["abc", "d", "ef", "gh", "i", "jkl", ""]
    assert rows.end == [0, 0, 1, 0, 2, 0, 1] and rows.answer == [None, "7", "1", None, "2", None, "1"]
    # A probe that was asked where a segment ends now is kept; figures of other segments are not.
    assert rows.probed == [False, True, False, False, False, False, False]
    assert np.isnan(rows.logprob)[[0, 1]].all() and rows.logprob[2] == -3
    assert all(ids is None for ids in rows.token_ids)
    left = replace(stored, text=["ab", "cd", "ef", "ghi", "j"])
    tree = grow(ReadTree(None, stored=left), recover(Letters(), left), EveryTokens(3), NoThinking())
    rows = tree.rows(Letters(), 10)
    assert rows.tokens[-1] == 4 and rows.text[-1] == "j" and rows.logprob[-1] == -5


def test_known_figures():
    known = Known([np.nan, 2.0])
    known.take(1, [9.0])
    known.take(0, [3.0, 4.0])
    known.take(-1, None)
    assert known.found[:2] == [2.0, 3.5] and np.isnan(known.found[2])


def test_rescoring_changes_scores_and_nothing_else(tmp_path):
    source = write(
        tmp_path / "s", 5, replace(TREE, prm=[[0.5], [], [0.1], [0.2], [0.3]]), prm="old", shard_nodes=8
    )
    scorer = Hashing()
    job = Rescoring(tmp_path / "s", tmp_path / "new", scoring_by(scorer), group=2)
    job.run()
    new = Store.open(tmp_path / "new")
    assert scorer.is_closed and scorer.calls == 3
    assert tables(new, "prm").equals(tables(source, "prm"))
    for name in source.meta["files"]:
        if not name.startswith("nodes/"):
            assert new.read_bytes(name) == source.read_bytes(name)
    changed = {"files", "prm", "provenance", "generator"}
    assert {k: v for k, v in new.meta.items() if k not in changed} == {
        k: v for k, v in source.meta.items() if k not in changed
    }
    assert new.meta["prm"] == "hashing" and new.meta["provenance"]["made_from"] == {
        "how": "rescore",
        "store": "s",
        "sha256": hashlib.sha256((tmp_path / "s/store.json").read_bytes()).hexdigest(),
    }
    # One step a path: the text has no separator, so the scores stand at the leaves.
    expected = [[], [], [scorer._score("q4", ["abcdef"])], [scorer._score("q4", ["abcdghi"])]]
    assert tables(new)["prm"].to_pylist()[-5:-1] == expected
    assert not (tmp_path / "new.collecting").exists()


def test_rescoring_goes_on_where_it_was_and_never_mixes_scores(tmp_path):
    write(tmp_path / "s", 5)
    scorer = Hashing()
    job = Rescoring(tmp_path / "s", tmp_path / "new", scoring_by(scorer), group=2)
    fail_after(scorer, 2)
    with pytest.raises(UserError, match="no more"):
        job.run()
    assert not (tmp_path / "new").exists()
    again = Hashing()
    Rescoring(tmp_path / "s", tmp_path / "new", scoring_by(again), group=2).run()
    assert again.calls == 1
    complete = Rescoring(tmp_path / "s", tmp_path / "new", scoring_by(again), group=2)
    assert complete.complete
    # Another PRM, and another source, begin from nothing.
    fail_after(failing := Hashing("x"), 2)
    with pytest.raises(UserError, match="no more"):
        Rescoring(tmp_path / "s", tmp_path / "other", scoring_by(failing), group=2).run()
    fresh = Hashing("y")
    Rescoring(tmp_path / "s", tmp_path / "other", scoring_by(fresh), group=2).run()
    assert fresh.calls == 3
    with pytest.raises(StoreError, match="there is a store at"):
        Rescoring(tmp_path / "s", tmp_path / "new", scoring_by(fresh), group=2)


def test_rescoring_in_place(tmp_path):
    before = write(tmp_path / "s", 2)
    Rescoring(tmp_path / "s", tmp_path / "s", scoring_by(Hashing()), force=True).run()
    after = Store.open(tmp_path / "s")
    assert tables(after, "prm").num_rows == 10 and "prm" in after.capabilities
    assert after.meta["provenance"]["made_from"]["sha256"] == before.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_rescoring_needs_texts(tmp_path):
    write(tmp_path / "s", 1, replace(TREE, text=None, token_ids=None))
    with pytest.raises(UserError, match="has no texts, which a PRM would read"):
        Rescoring(tmp_path / "s", tmp_path / "new", scoring_by(Hashing()))


def fail_after(scorer: Hashing, calls: int) -> None:
    score = scorer.score

    def limited(items):
        if scorer.calls == calls:
            raise UserError("no more")
        return score(items)

    scorer.score = limited
