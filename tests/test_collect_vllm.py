"""Sampling with the real vLLM: exact tokens, exact log probabilities, probes that disturb nothing."""

import numpy as np
import pytest
from collecting import grow, make_plan, make_sampler, problems
from vllm_models import shared_engine, shared_model

from collect.engine import GREEDY, Request, Sampling, Spliced, generate
from collect.plan import Segments
from collect.probes import Prefix
from collect.sampler import Shape, seed_of
from collect.tokens import Tokens
from collect.work import Tally, work_through
from env.forest import END_LENGTH, END_NONE, END_STOP
from env.nodes import NodeColumns

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def trees():
    return grow(make_plan(shape=Shape(6, (1, 2), (3, 2))))


@pytest.fixture(scope="module")
def forward():
    """Log probabilities of every token after the prompt, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(shared_model(), dtype=torch.float32).eval()

    def logprobs(prompt, ids):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits.double(), -1).numpy()

    return logprobs


def joined(parts) -> list[int]:
    return [token for part in parts for token in part]


def test_segments_are_the_sampled_tokens(trees):
    for tree in trees:
        for branch_number, branch in enumerate(tree.branches):
            own = [node for node in tree.nodes if node.branch == branch_number]
            assert [tree.prefix(node)[node.first :] for node in own]
            assert joined(branch.ids[node.first : node.last] for node in own) == branch.ids[branch.start :]
            assert [node.end == END_NONE for node in own] == [True] * (len(own) - 1) + [False]
            last = tree.path(tree.nodes.index(own[-1]))
            rows = [tree.nodes[node] for node in last]
            ids = [tree.branches[row.branch].ids[row.first : row.last] for row in rows]
            assert joined(ids) == branch.ids
            assert [row.depth for row in rows] == list(range(len(rows)))


def test_branches_end_where_they_should(trees):
    tokens = Tokens(str(shared_model()))
    ends = {END_STOP: 0, END_LENGTH: 0}
    for tree in trees:
        for node in tree.nodes:
            if node.end != END_NONE:
                ids = tree.prefix(node)
                ends[node.end] += 1
                assert (ids[-1] in tokens.ends) == (node.end == END_STOP)
                assert len(ids) == 120 or node.end == END_STOP
                assert not set(ids[:-1]) & set(tokens.ends)
    assert min(ends.values()) > 0


def test_forks_continue_their_parents_prefix(trees):
    for tree in trees:
        forks = [branch for branch in tree.branches if branch.parent >= 0]
        assert len({branch.path for branch in tree.branches}) == len(tree.branches)
        for branch in forks:
            parent = tree.nodes[branch.parent]
            assert branch.ids[: branch.start] == tree.prefix(parent)
            assert parent.end == END_NONE and branch.start == parent.last
            whole = tree.branches[parent.branch]
            assert branch.ids != whole.ids
            assert np.array_equal(branch.logprobs[: branch.start], whole.logprobs[: branch.start])
        # Three children of every node at depth 1 that goes on, and of those at depth 2 two.
        for depth, width in ((1, 3), (2, 2)):
            for number, node in enumerate(tree.nodes):
                children = sum(other.parent == number for other in tree.nodes)
                if node.end == END_NONE and node.depth == depth - 1:
                    assert children == width
                elif node.depth != 0 and node.depth != 1:
                    assert children == (node.end == END_NONE)
        NodeColumns(tree.rows(Tokens(str(shared_model())), 48))


def test_logprobs_and_confidence_are_those_of_a_plain_forward_pass(trees, forward):
    tokens = Tokens(str(shared_model()))
    for tree in trees:
        rows = tree.rows(tokens, 48)
        for number, branch in enumerate(tree.branches):
            found = forward(tree.prompt.ids, branch.ids)
            expected = found[np.arange(len(branch.ids)), branch.ids]
            np.testing.assert_allclose(branch.logprobs, expected, atol=1e-4)
            confidence = -np.sort(found, axis=1)[:, ::-1][:, :20].mean(axis=1)
            np.testing.assert_allclose(branch.confidence, confidence, atol=1e-4)
            for place, node in enumerate(tree.nodes):
                if node.branch == number:
                    span = slice(node.first, node.last)
                    assert rows.logprob[place] == pytest.approx(expected[span].mean(), abs=1e-4)
                    group = confidence[max(0, node.last - 48) : node.last]
                    assert rows.confidence[place] == pytest.approx(group.mean(), abs=1e-4)


def test_probes_are_greedy_and_disturb_nothing(trees, forward):
    plan = make_plan(shape=Shape(6, (1, 2), (3, 2)))
    bare = grow(make_plan(shape=Shape(6, (1, 2), (3, 2)), probing=None))
    for probed, unprobed in zip(trees, bare, strict=True):
        assert [branch.ids for branch in probed.branches] == [branch.ids for branch in unprobed.branches]
        assert not any(node.probed for node in unprobed.nodes)
        assert [node.probed for node in probed.nodes] == [node.end == END_NONE for node in probed.nodes]
    prober = make_sampler(plan).prober
    tree = trees[0]
    node = next(node for node in tree.nodes if node.probed)
    said, prompt = [], tree.prompt.ids + tree.prefix(node) + prober.suffixes[True]
    closers = Tokens(str(shared_model())).with_text("}")
    while len(said) < 12 and not (said and said[-1] in (*closers, *Tokens(str(shared_model())).ends)):
        said.append(int(forward(prompt + said, [0])[0].argmax()))
    assert node.probe_tokens == len(said)


def test_samples_depend_on_their_request_alone():
    sampler = make_sampler(make_plan())
    prompt = sampler.prompter.encode("What is 2 + 2? " * 5).ids
    requests = [
        Request(prompt, 60, seed_of(0, 0, "p", (number,)), Sampling(), sampler.tokens.ends, 5)
        for number in range(12)
    ]
    together = generate(shared_engine(), requests)
    assert len({tuple(sample.token_ids) for sample in together}) == len(requests)
    for request, sample in list(zip(requests, together, strict=True))[::5]:
        (alone,) = generate(shared_engine(), [request])
        assert alone.token_ids == sample.token_ids
        np.testing.assert_allclose(alone.logprobs, sample.logprobs, atol=1e-5)
        assert alone.cached_tokens > 0


def test_prompts_that_fill_more_than_a_step():
    sampler = make_sampler(make_plan())
    asked = [Request([5 + n] * 1500, 4, n, Sampling(), sampler.tokens.ends) for n in range(6)]
    assert all(sample.token_ids for sample in generate(shared_engine(), asked))


def test_probes_of_a_chain_are_served_from_the_prefix_cache():
    """At 500 tokens a segment, from a cold cache: the ids are made up, since the model stops far earlier."""
    prober = make_sampler(make_plan()).prober
    ids = np.random.default_rng(5).integers(10, 300, 6000).tolist()
    prefixes = [Prefix(Spliced((ids, end)), True) for end in range(500, len(ids), 500)]
    tally = Tally()
    ((_, probes),) = work_through(shared_engine(), [(0, prober.ask(prefixes))], tally)
    assert len(probes) == 11
    recomputed = tally.prompt_tokens - tally.cached_tokens
    assert tally.prompt_tokens > 30_000
    assert 5500 <= recomputed <= 1.2 * 5500
    assert tally.decoded_tokens <= 0.1 * len(ids)


def test_segments_of_steps_end_with_their_separator():
    plan = make_plan(segments=Segments(None, 1, "e"), shape=Shape(8))
    sampler = make_sampler(plan)
    inner = 0
    for tree in grow(plan):
        for branch in tree.branches:
            nodes = [node for node in tree.nodes if tree.branches[node.branch] is branch]
            for node in nodes[:-1]:
                pieces = [sampler.tokens.piece(token) for token in branch.ids[node.first : node.last]]
                assert "e" in pieces[-1] and not any("e" in piece for piece in pieces[:-1])
                inner += 1
            close = sampler.prompter.close_of(branch.ids)
            assert close is None or all(node.last <= close for node in nodes[:-1])
    assert inner > 20


def test_answers_after_the_thinking_are_final():
    """The tokens are chosen, not sampled: which text is an answer does not depend on the model."""
    from collect.tree import Branch, Tree, final_answer_text

    sampler = make_sampler(make_plan())
    tokens, prompter = sampler.tokens, sampler.prompter
    prompt = prompter.encode("What is 1 + 1?")
    assert prompt.thinking
    thought = tokens.encode("So \\boxed{3}, no." * 8)
    answer = tokens.encode("</think>\n\nIt is \\boxed{2}." * 1)
    tree = Tree(prompt)
    nothing = np.zeros(len(thought) + len(answer), np.float32)
    tree.add(
        Branch((0,), thought + answer, nothing, None), sampler.cutter, prompter.close_of(thought + answer)
    )
    assert tree.nodes[-1].last - tree.nodes[-1].first >= len(answer)
    assert all(node.last <= len(thought) for node in tree.nodes[:-1])
    assert final_answer_text(tokens, prompter, prompt, thought + answer).strip() == "It is \\boxed{2}."
    assert final_answer_text(tokens, prompter, prompt, thought) == ""
    rows = tree.rows(tokens, 48)
    assert "".join(rows.text) == "So \\boxed{3}, no." * 8 + "</think>\n\nIt is \\boxed{2}."


def test_requests_of_many_problems_come_back_to_their_own():
    sampler = make_sampler(make_plan())
    ends = sampler.tokens.ends

    def work(number):
        prompt = sampler.prompter.encode(problems(40)[number].question).ids
        first = yield [Request(prompt, 3, 0, GREEDY, ends)]
        second = yield [
            Request([*prompt, *first[0].token_ids], 2, 0, GREEDY, ends) for _ in range(number % 3)
        ]
        return first[0].token_ids, [sample.token_ids for sample in second]

    found = dict(work_through(shared_engine(), ((n, work(n)) for n in range(40)), Tally()))
    assert sorted(found) == list(range(40))
    for number, (first, second) in found.items():
        prompt = sampler.prompter.encode(problems(40)[number].question).ids
        (whole,) = generate(shared_engine(), [Request(prompt, 5, 0, GREEDY, ends)])
        assert len(second) == number % 3
        assert all(first + rest == whole.token_ids for rest in second) and whole.token_ids[:3] == first
