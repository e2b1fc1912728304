"""Attacks by what a controller's process sends: malformed and forged frames, floods, stalls. One a test."""

import pytest
from rig import attempt, raw

BIG = 0xFFFFFFFF

# name -> what the attacker does on its pipe; each must end its job for the reason that follows.
MALFORMED = {
    "bad magic": ("say(header(finals=3, magic=7) + bytes(36))", "bad magic"),
    "no frame at all": ("say(b'GET / HTTP/1.1\\r\\nHost: engine\\r\\n\\r\\n')", "bad magic"),
    "actions beyond count": (f"say(header(actions={BIG}))", "more actions"),
    "ids beyond count": (f"say(header(actions=1, ids={BIG}))", "more actions"),
    "answers beyond count": (f"say(header(finals={BIG}))", "more actions"),
    "notes beyond count": (f"say(header(actions=1, notes={BIG}))", "too many notes"),
    "text beyond count": (f"say(header(finals=3, text={BIG}))", "too much text"),
    "actions whose size overflows": ("say(header(actions=0x33333334))", "more actions"),
    "ids whose size overflows": ("say(header(actions=1, ids=0x40000001))", "more actions"),
    "one answer too many": ("say(header(finals=4) + bytes(48))", "more actions"),
    "an empty frame": ("say(frame())", "0 actions and 0 answers"),
    "round zero": ("say(frame(round=0, finals=[(0, -1, 0)]))", "out of turn"),
    "a later round": ("say(frame(round=2, finals=[(0, -1, 0)]))", "out of turn"),
    "the same round twice": (
        "for _ in '12':\n    say(frame(actions=[(0, 1, 1, 2, 0)]))\n    hear()",
        "out of turn",
    ),
    "trailing bytes": ("say(frame(finals=[(0, -1, 0)]) + b'x')", "more than one frame"),
    "two frames in a turn": (
        "say(frame(finals=[(0, -1, 0)]) + frame(2, finals=[(1, -1, 0)]))",
        "more than one",
    ),
    "a text of negative length": (
        "say(frame(finals=[(0, -1, -5), (1, -1, 8)], text=b'abc'))",
        "text lengths",
    ),
    "texts longer than the text": ("say(frame(finals=[(0, -1, 900)], text=b'abc'))", "text lengths"),
    "texts shorter than the text": ("say(frame(finals=[(0, -1, 1)], text=b'abc'))", "text lengths"),
    "counts that do not add up": ("say(frame(actions=[(0, 3, 0, 5, 0)], ids=[0]))", "do not add up"),
    "ids that no action has": ("say(frame(actions=[(0, 1, 0, 1, 0)], ids=[0, 1]))", "do not add up"),
    "step counts that are missing": ("say(frame(actions=[(0, 2, 0, 2, -1)], ids=[0, 1]))", "do not add up"),
    "settings twice": ("say(notice({'settings': {}}))", "a kind that there is not"),
    "an unknown notice": ("say(notice({'answer': 1}))", "a kind that there is not"),
    "a notice that is no dictionary": ("say(notice([1, 2]))", "a kind that there is not"),
    "a notice of unknown tags": ("say(header(0, magic=0x4E535454, text=4) + b'cos\\n')", "malformed notice"),
    "a notice that claims too much": (
        "say(header(0, magic=0x4E535454, text=5) + b's' + b'\\xff' * 4)",
        "malformed",
    ),
    "a notice of many levels": (
        "say(header(0, magic=0x4E535454, text=5000) + b'l\\1\\0\\0\\0' * 1000)",
        "levels",
    ),
    "a notice too long": ("say(header(0, magic=0x4E535454, text=1 << 20))", "malformed notice"),
    "a notice with counts": (
        "say(header(0, magic=0x4E535454, actions=1, text=1) + b'n')",
        "malformed notice",
    ),
    "code of its own": ("say(header(0, magic=0x43535454, text=1) + b'x')", "code out of turn"),
    "code that is too long": ("say(header(0, magic=0x43535454, text=1 << 20))", "malformed notice"),
    "leaving in mid-frame": ("say(header(finals=3)[:10])\nos._exit(0)", "ended before"),
    "leaving with all answers promised": ("say(header(finals=3))\nos._exit(0)", "ended before"),
    "leaving between frames": ("say(frame(finals=[(0, -1, 0)]))\nhear()\nos._exit(0)", "ended before"),
}

# The engine must not take these, whatever else is true of the frame.
FORGED = {
    "an episode of another job": ("say(frame(actions=[(3, 1, 1, 1, 0)]))", "does not play"),
    "an episode before the first": ("say(frame(actions=[(-1, 1, 1, 1, 0)]))", "does not play"),
    "an answer for another job": ("say(frame(finals=[(3, 0, 0)]))", "does not play"),
    "a note for another job": (
        "say(frame(finals=[(0, -1, 0)], notes=[(3, 2)], text=b'hi'))",
        "does not play",
    ),
    "an action after the answer": (
        "say(frame(finals=[(0, -1, 0)]))\nhear()\nsay(frame(2, actions=[(0, 1, 1, 1, 0)]))",
        "has ended",
    ),
    "an answer after the answer": (
        "say(frame(finals=[(0, -1, 0)]))\nhear()\nsay(frame(2, finals=[(0, 0, 0)]))",
        "has ended",
    ),
    "two answers at once": ("say(frame(finals=[(0, -1, 0), (0, 0, 0)]))", "answers twice"),
    "an action beside the answer": (
        "say(frame(actions=[(0, 1, 1, 1, 0)], finals=[(0, 0, 0)]))",
        "acts and answers",
    ),
    "actions out of order": ("say(frame(actions=[(1, 1, 1, 1, 0), (0, 1, 1, 1, 0)]))", "out of order"),
}

# What the engine refuses without ending the job: kind, probe, count, argument, ids. It must reveal no row.
REFUSED = {
    "an unopened branch": ((3, 0, 1, 0), [5]),
    "a negative branch": ((3, 0, 1, 0), [-1]),
    "a branch far away": ((3, 0, 1, 0), [2**31 - 1]),
    "a branch of the next episode": ((3, 0, 1, 0), [2]),
    "a probe of an unopened branch": ((4, 1, 1, 0), [5]),
    "the same branch twice": ((3, 0, 2, 0), [0, 0]),
    "a branch of another arm": ((1, 0, 1, 7), []),
    "a negative arm": ((1, 0, 1, -1), []),
    "a negative number of branches": ((1, 0, -1, 0), []),
    "a negative number of segments": ((2, 0, 1, -2), [0]),
    "a fork where there are none": ((6, 0, 1, 0), []),
    "a score where there are none": ((5, 0, 1, 0), [0]),
    "an action that there is not": ((99, 0, 1, 0), [0]),
    "an action of kind zero": ((0, 0, 1, 0), [0]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(rig, pool, name):
    body, reason = MALFORMED[name]
    attack = rig.attack(pool, raw(f"{body}\nhear()"))
    assert reason in attack.outcome.error
    assert not attack.replay.correct[3:].any()


@pytest.mark.parametrize("name", FORGED)
def test_forged(rig, pool, name):
    body, reason = FORGED[name]
    attack = rig.attack(pool, raw(f"{body}\nhear()"))
    assert reason in attack.outcome.error
    assert not attack.replay.correct[3:].any() and not attack.replay.ledger[3:].any()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_the_engine(rig, pool, name):
    (kind, probe, count, argument), ids = REFUSED[name]
    body = f"""
        say(frame(actions=[(0, 1, 0, 2, 0)]))
        first = hear()
        say(frame(2, actions=[(0, {kind}, {probe}, {count}, {argument})], ids={ids}))
        reply = hear()
        actions, rows = struct.unpack_from('<2I', reply, 4 + 8)
        say(frame(3, finals=[(0, -1, 0), (1, -1, 0), (2, -1, 0)], notes=[(0, 1)], text=b'%d' % rows))"""
    attack = rig.attack(pool, raw(body))
    assert attack.outcome.error == "" and attack.notes == ["0"]


def instead(source: str, call: str) -> str:
    """An attempt that makes `call` within the episode."""
    return source.replace("loot = attempt()", f"loot = {call}")


def test_code_of_its_own_before_anybody_hears_of_its_settings(rig, pool):
    attack = rig.attack(pool, raw("pass") + "\nsay(header(0, magic=0x43535454, text=1) + b'x')")
    assert "code out of turn" in attack.outcome.error


def test_more_branches_than_there_are(rig, pool):
    attack = rig.attack(pool, instead(attempt("pass"), "len(await ep.branch(2**31 - 1))"))
    assert attack.notes == ["GAINED 6"] * 3


def test_an_answer_never_seen(rig, pool):
    attack = rig.attack(pool, attempt("pass") + "    return 0")
    assert not attack.replay.correct[3:].any()
    assert all("no code that this episode has seen" in attack.errors[e] for e in range(3))


def test_an_answer_of_another_episode(rig, pool):
    source = """
        say(frame(actions=[(0, 1, 1, 6, 0)]))
        hear()
        say(frame(2, finals=[(0, -1, 0), (1, 0, 0), (2, 1, 0)]))"""
    attack = rig.attack(pool, raw(source))
    assert not attack.replay.correct[3:].any() and set(attack.errors) == {1, 2}


def test_notes_that_nobody_asked_for(rig, pool):
    source = raw("say(frame(finals=[(0, -1, 0)], notes=[(0, 1)], text=b'x'))\nhear()")
    attack = rig.attack(pool, source, tracing=False)
    assert "more text than it may" in attack.outcome.error and attack.notes == []


def test_flood_of_notes_at_once(rig, pool):
    attack = rig.attack(pool, instead(attempt("pass"), "[ep.note('x' * 500) for _ in range(1_000)]"))
    assert "more text than it may" in attack.outcome.error and attack.notes == []


def test_flood_of_notes_over_rounds(rig, pool):
    body = """
        for round in range(1, 9999):
            notes = [(0, 500)] * 64
            say(frame(round, actions=[(0, 4, 0, 0, 0)], notes=notes, text=b'x' * 32_000))
            hear()"""
    attack = rig.attack(pool, raw(body))
    assert "more text than it may" in attack.outcome.error and len(attack.notes) <= 128


def test_flood_of_error_text(rig, pool):
    attack = rig.attack(pool, attempt("pass") + "    raise ValueError('x' * 10_000_000)")
    assert attack.outcome.error == "" and all(len(text) < 1_100 for text in attack.errors.values())


def test_flood_of_notice_text(rig, pool):
    attack = rig.attack(pool, "raise ValueError('x' * 10_000_000)")
    assert len(attack.outcome.error) < 2_100


def test_flood_of_settings(rig, pool):
    attack = rig.attack(pool, "def schedule(beta): return {'x': [1.5] * 10_000}")
    assert "malformed notice" in attack.outcome.error and attack.outcome.settings is None


def test_flood_of_frames(rig, pool):
    body = """
        for round in range(1, 999_999):
            say(frame(round, actions=[(0, 4, 0, 0, 0)]))
            hear()"""
    attack = rig.attack(pool, raw(body))
    assert "sent more than" in attack.outcome.error or "processor time" in attack.outcome.error


def test_flood_without_listening(rig, pool):
    attack = rig.attack(
        pool, raw("for round in range(1, 9999): say(frame(round, actions=[(0, 4, 0, 0, 0)]))")
    )
    # Which of the two depends on how many of its frames one read of ours finds.
    assert ("more than one frame" in attack.outcome.error) or ("spoke before" in attack.outcome.error)


def test_flood_of_prints(rig, pool, capfd):
    rig.attack(pool, attempt("print('x' * 1_000_000); print('y', file=sys.stderr); os.write(2, b'z')"))
    assert capfd.readouterr() == ("", "")


def test_terminal_escapes_in_an_error(rig, pool):
    attack = rig.attack(pool, attempt("pass") + r"    raise ValueError('\x1b]0;owned\x07\x1b[2J\u202e')")
    assert all(text.isprintable() and "owned" in text for text in attack.errors.values())


def test_terminal_escapes_in_a_note(rig, pool):
    attack = rig.attack(pool, attempt(r"return '\x1b]0;owned\x07\x1b[2J\u202e'"))
    assert all(text.isprintable() and "owned" in text for text in attack.notes)


def test_terminal_escapes_in_a_notice(rig, pool):
    attack = rig.attack(pool, r"raise ValueError('\x1b]0;owned\x07\x1b[2J\u202e')")
    assert attack.outcome.error.isprintable() and "owned" in attack.outcome.error


def test_settings_that_are_code(rig, pool):
    attack = rig.attack(pool, "def schedule(beta): return {'x': __import__('os').system}")
    assert "only numbers, strings" in attack.outcome.error and attack.outcome.settings is None


def test_drip_feeding(rig, pool):
    body = """
        say(header(actions=700, ids=12_000))
        for _ in range(62_000):
            say(b'\\0')"""
    attack = rig.attack(pool, raw(body))
    assert attack.outcome.error


STALLS = {
    "in mid-header": "say(header(finals=3)[:10])\nhear()",
    "in mid-frame": "say(header(finals=3) + bytes(7))\nhear()",
    "for a reply that is not due": "hear()",
    "on a lock": "import _thread\nlock = _thread.allocate_lock()\nlock.acquire()\nlock.acquire()",
}


@pytest.mark.parametrize("name", STALLS)
def test_stall(rig, impatient_pool, name):
    attack = rig.attack(impatient_pool, raw(STALLS[name]))
    assert "kept us waiting" in attack.outcome.error
