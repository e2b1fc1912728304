import logging
import os
import signal
import sys
import textwrap
import threading
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from math_verify import LatexExtractionConfig, parse, verify

from env.latex import broken, evaluate
from env.math_checker import MathChecker, TaskError, checker
from env.math_task import MathTask, last_boxed
from env.tasks import ChoiceTask, ExactTask, classify, load_task

MATH = MathTask()

# Numbers from a small range, so that equal ones meet, in every dress that answers come in.
small = st.integers(0, 4)
above = st.integers(1, 4)
numbers = st.one_of(
    small.map(str),
    small.map("-{}".format),
    small.map("{:03d}".format),
    st.builds("{}.{}".format, small, st.sampled_from(["0", "5", "50", "25", "333333", "3333333", "33"])),
    st.sampled_from(
        ["1,000", "1000", "12,345", "12345", "1,234.5", "1234.5", "0,5", "10,00", ".5", "1234,567"]
    ),
    st.builds("{}/{}".format, small, above),
    st.builds(r"\frac{{{}}}{{{}}}".format, small, above),
    st.builds(r"\dfrac{{{}}}{{{}}}".format, small, above),
    st.builds(r"\frac{}{}".format, small, above),
    st.builds(r"{}\frac{{1}}{{{}}}".format, small, above),
    st.builds(r"{} \frac{{{}}}{{{}}}".format, small, small, above),
    small.map(r"{}\%".format),
)
roots = st.builds(
    r"{}\sqrt{{{}}}".format, st.sampled_from(["", "2", "3"]), st.sampled_from([2, 4, 8, 9, 12, 18])
)
atoms = st.one_of(numbers, numbers, roots, st.sampled_from(["2^{2}", "2^3", "x", "2x", r"\pi", "e", "n"]))
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from(["+", "-", r"\cdot", r"\times"]), inner),
        inner.map("({})".format),
        inner.map(r"\left( {} \right)".format),
    ),
    max_leaves=3,
)
answers = st.one_of(
    expressions,
    st.builds(
        "{}{}".format,
        expressions,
        st.sampled_from([" cm", r"\text{ cm}", " degrees", r"^\circ", " hours", " "]),
    ),
    st.builds("{} = {}".format, st.sampled_from("xn"), expressions),
    st.builds("({}, {})".format, expressions, numbers),
    st.builds("{}, {}".format, expressions, numbers),
    st.builds(r"\{{{}, {}\}}".format, expressions, numbers),
    st.sampled_from(
        ["Evelyn", r"\text{Evelyn}", "yes", "no", r"\text{yes}", "C", r"\text{C}", r"\infty", "red and blue"]
    ),
)


@pytest.fixture(autouse=True)
def quiet():
    """math-verify reports what it cannot do; here that is its right."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def plainly_equal(first: str, second: str) -> bool:
    """What math-verify says without any short cut of ours."""
    config = [LatexExtractionConfig()]
    return verify(parse(f"${first}$", config), parse(f"${second}$", config))


# On a busy machine the alarm of math-verify may ring where nobody can catch it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(answers, answers)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_math_agrees_with_plain_math_verify(first, second):
    assert MATH.equal(first, second) == plainly_equal(first, second)


@given(numbers, numbers)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_math_agrees_with_plain_math_verify_on_numbers(first, second):
    assert MATH.equal(first, second) == plainly_equal(first, second)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("1/2", r"\frac{1}{2}", True),
        ("0.5", r"\frac12", True),
        (r"1-\frac{2}{\pi}", r"1 - \frac{2}{\pi}", True),
        (r"\frac{2}{\sqrt{2}}", r"\sqrt{2}", True),
        (r"(x+1)^2", r"x^2 + 2x + 1", True),
        (r"\cos^2 \theta + \sin^2 \theta", "1", True),
        (r"\sqrt{2} + 10^{-5}", r"\sqrt{2}", False),
        ("0.333333", "1/3", True),
        ("0.3333", "1/3", False),
        ("204", "204.0", True),
        ("$204$", "204", True),
        (r"\boxed{204}", "204", True),
        ("{1, 2}", "2, 1", True),
        ("x = 5", "5", True),
        ("x = 1, y = 2", "(1, 2)", True),
        (r"\$5,000", "5000", True),
        ("3:4", "0.75", True),
        (r"\binom{5}{2}", "10", True),
        ("((3\\%))", "3", True),
        ("50\\%", "0.5", True),
        ("23!!", "23!", False),
        ("5\n", "5", True),
        ("", "", True),
        ("", "0", False),
        ("1" * 600, "1" * 600 + " ", True),
        ("1" * 9000, "1" * 9001, False),
        ("x" * 5000, "x" * 4999, False),
        (r"\sqrt{" * 400, "1", False),
        ("(" * 900 + "1" + ")" * 900, "1", False),
    ],
)
def test_math_equality(first, second, same):
    assert MATH.equal(first, second) is same


TOWERS = [
    "9^{9^{9^{9}}}",
    "9^{9^{9^{8}}}",
    "4^{2^{2025}} + 5^{2^{2025}}",
    "4^{2^{2025}} - 5^{2^{2025}}",
    r"e^{e^{e^{e^{9}}}}",
]


def test_towers_cost_no_time():
    """Sympy would work on one of these until the memory ends."""
    began = time.process_time()
    classes = classify(MATH, [*TOWERS, "3"], "3")
    assert len(classes.representatives) == len(TOWERS) + 1
    assert time.process_time() - began < 2


def test_a_question_without_end_counts_as_not_equal():
    """The worker is killed by the kernel; the next question has another."""
    mine = MathChecker(seconds=0)
    assert mine.equal("9^{9^{9^{9}}}", "3") is False
    assert mine.equal("1/2", "0.5") is True
    os.kill(mine._process.pid, signal.SIGKILL)
    assert mine.equal("1/2", "0.5") in (True, False)
    assert mine.equal("1/2", "0.5") is True


def test_an_answer_beyond_math_verify_costs_the_others_nothing():
    beyond = r"$\binom{99999999}{4999999}$"
    assert MathChecker(seconds=0).normalise([beyond, r"5\text{ cm}"]) == [beyond, "5"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such alarms on this platform")
def test_reading_many_answers_can_be_interrupted():
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    answers = [rf"the answer is \int_0^1 x^{{{number}}} dx" for number in range(1_000)]
    started, before = time.monotonic(), signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            MathTask().read(answers)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 10


def test_math_works_in_threads_and_after_a_fork():
    """math-verify alone does neither: its alarm needs the main thread."""
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(MathTask().equal("x = 5", "5"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3
    child = os.fork()
    if child == 0:
        os._exit(0 if checker().equal("x = 5", "5") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert checker().equal("x = 6", "6")


def test_without_math_verify(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no math-verify here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(TaskError, match="needs math-verify: ImportError: no math-verify here; run"):
        MathChecker().equal("1", "x")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $x = \boxed{12}$, no, \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{12} and \boxed{3", "12"),
        (r"\boxed{}", None),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("The final answer is $42$.", "42"),
        ("I do not know", None),
        ("", None),
    ],
)
def test_math_extraction(text, answer):
    assert MATH.extract(text) == answer


@pytest.mark.parametrize("gold", ["", "  ", "?", "+", "1 +"])
def test_math_refuses_gold_that_is_no_mathematics(gold):
    with pytest.raises(TaskError, match="is not a mathematical expression; correct it or try --task exact"):
        classify(MATH, ["1"], gold)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{(b)}}", "B"),
        (r"\boxed{\textbf{(C)}\ 12}", "C"),
        ("Answer: (D).", "D"),
        ("The correct answer is **C**", "C"),
        ("A man says no, so I'd take B", "B"),
        ("there is none", None),
    ],
)
def test_choice_extraction(text, letter):
    assert ChoiceTask().extract(text) == letter


def test_choice():
    task = ChoiceTask()
    assert task.equal("(b)", "B.") and task.equal(r"\text{B}", "b") and not task.equal("A", "B")
    assert task.equal("none", "none") and not task.equal("none", "all")
    assert task.grade("A", "(A)")
    with pytest.raises(TaskError, match="'42' is not a letter from A to J"):
        task.grade("42", "A")


def test_exact():
    task = ExactTask()
    assert task.extract("a\n b c \n\n") == "b c"
    assert task.extract(r"\boxed{x} then") == "x"
    assert task.extract("\n") is None
    assert task.equal("a  b", "a b\n") and not task.equal("a", "A")
    with pytest.raises(TaskError, match="the gold answer is empty"):
        task.grade(" ", "a")


def test_classes_are_founded_in_stored_order():
    """Rounding makes equality intransitive, so order matters: each joins the first class that it equals."""
    third, short = r"\frac{1}{3}", "0.333333"
    near = "0.3333334"
    assert MATH.equal(third, short) and MATH.equal(short, near) and MATH.equal(third, near)
    classes = classify(MATH, [short, "7", third, "7.0", "$7$", third], "7")
    assert classes.representatives == [short, "7"]
    assert classes.of == {short: 0, "7": 1, third: 0, "7.0": 1, "$7$": 1}
    assert classes.correct == [False, True]


@given(st.lists(st.one_of(numbers, expressions), max_size=12), numbers)
@settings(max_examples=50, deadline=None)
def test_the_index_changes_nothing(found, gold):
    """Classing with the index gives what comparing with every representative gives."""
    assume(evaluate(gold) is not None)
    representatives, of = [], {}
    for answer in found:
        equal = [k for k, text in enumerate(representatives) if MATH.equal(text, answer)]
        if not equal and answer not in of:
            representatives.append(answer)
        of.setdefault(answer, equal[0] if equal else len(representatives) - 1)
    classes = classify(MATH, found, gold)
    assert (classes.representatives, classes.of) == (representatives, of)
    assert classes.correct == [MATH.equal(gold, text) for text in representatives]


def test_gold_founds_no_class():
    assert classify(MATH, ["1", "2"], "3").correct == [False, False]


def test_a_thousand_answers_are_classed_in_a_moment():
    many = [f"{k}\\sqrt{{2}} + \\frac{{{k}}}{{7}}" for k in range(1000)]
    began = time.process_time()
    assert len(classify(MATH, many, "1").representatives) == 1000
    assert time.process_time() - began < 1.5


def module(tmp_path, monkeypatch, body):
    (tmp_path / "mine.py").write_text(textwrap.dedent(body))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def test_a_task_of_the_users_own(tmp_path, monkeypatch):
    module(
        tmp_path,
        monkeypatch,
        """
        class Parity:
            def extract(self, text):
                return text or None
            def equal(self, first, second):
                return int(first) % 2 == int(second) % 2
            def grade(self, gold, answer):
                return self.equal(gold, answer)
        class Half:
            def equal(self, first, second):
                return True
        """,
    )
    classes = classify(load_task("mine:Parity"), ["1", "2", "3"], "4")
    assert (classes.of, classes.correct) == ({"1": 0, "2": 1, "3": 0}, [False, True])
    with pytest.raises(TaskError, match="Parity failed: ValueError: invalid literal"):
        classify(load_task("mine:Parity"), ["1", "x"], "4")
    with pytest.raises(TaskError, match="'mine:Half' is not a task; it needs the methods extract"):
        load_task("mine:Half")
    with pytest.raises(TaskError, match="'mine:Other' cannot be loaded: AttributeError"):
        load_task("mine:Other")


@pytest.mark.parametrize("name", ["maths", "", ":", "a:", "math:"])
def test_no_such_task(name):
    with pytest.raises(TaskError, match=r"no task .*; there are `math`, `choice`, `exact`, and"):
        load_task(name)


def test_a_module_that_is_not_there():
    with pytest.raises(TaskError, match="'nowhere:Task' cannot be loaded: ModuleNotFoundError"):
        load_task("nowhere:Task")


@given(st.text(st.sampled_from(r"0123456789+-*/^_{}()[]|!%., \abcexyfracsqtpi"), max_size=40))
@settings(max_examples=500, deadline=None)
def test_no_text_breaks_the_reader(text):
    evaluate(text)
    broken(text)
    last_boxed(text)


@pytest.mark.parametrize("text", ["1 +", "(1", "1}^{2}", "{", "1 + ... + 9", "?"])
def test_broken_latex(text):
    assert broken(text) == (text != "(1")


@pytest.mark.parametrize("task", [ExactTask(), ChoiceTask()])
@given(found=st.lists(st.sampled_from(["A", "(a)", "a ", "B.", "x  y", "x y", "none", ""]), max_size=8))
@settings(max_examples=30)
def test_tasks_with_keys_class_as_by_comparing(task, found):
    classes = classify(task, found, "A")
    for one in found:
        for two in found:
            assert (classes.of[one] == classes.of[two]) == task.equal(one, two)
    assert classes.correct == [task.equal("A", text) for text in classes.representatives]
