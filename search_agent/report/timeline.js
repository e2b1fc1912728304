// From the log of an episode to what stands where: segments by branch, and what was known when.

const SILENT = new Set(["probe", "score"]);
const letter = (code) => (code < 0 ? "?" : code < 26 ? String.fromCharCode(65 + code) : `#${code}`);
const tint = (code) => (code === null || code < 0 ? "mute" : `a${code % 6}`);
const each = (value, k) => (Array.isArray(value) ? value[k] : value ?? null);

const numbers = (spans) => spans.split(",").filter(Boolean).flatMap((span) => {
  const [first, last = first] = span.split("-").map(Number);
  return Array.from({ length: last - first + 1 }, (_, k) => first + k);
});

// Rounds take as long as their longest branch: the critical path is the clock.
const laidOut = (run) => {
  const branches = new Map();
  const branch = (id) => {
    if (!branches.has(id)) branches.set(id, { id, from: null, segments: [], pruned: null });
    return branches.get(id);
  };
  let clock = 0;
  const rounds = run.rounds.map((round, number) => {
    const start = clock;
    for (const action of round.actions) {
      numbers(action.ids ?? "").forEach((id, k) => {
        const mine = branch(id);
        if (action.do === "prune") { mine.pruned = { time: start, round: number }; return; }
        if (action.do === "fork" && mine.from === null) mine.from = action.from;
        const tokens = each(action.tokens, k) ?? 0;
        const probe = each(action.probe_tokens, k) ?? 0;
        const done = each(action.done, k);
        mine.segments.push({
          round: number, does: action.do, start, tokens, probe, end: start + tokens + probe,
          answer: each(action.answer, k), done: done === "pruned" ? null : done, prm: each(action.prm, k),
        });
        clock = Math.max(clock, start + tokens + probe);
      });
    }
    return { start, end: clock, actions: round.actions, notes: round.notes };
  });
  return { branches: [...branches.values()].sort((a, b) => a.id - b.id), rounds, length: clock };
};

// The votes after a number of rounds: what each branch that was not pruned showed last.
const votes = (laid, rounds) => {
  const counts = new Map();
  for (const branch of laid.branches) {
    if (branch.pruned && branch.pruned.round < rounds) continue;
    const shown = branch.segments.filter((s) => s.round < rounds && s.answer !== null);
    if (shown.length) counts.set(shown.at(-1).answer, (counts.get(shown.at(-1).answer) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
};

const spent = (laid, rounds) => laid.branches.reduce((sum, branch) =>
  sum + branch.segments.reduce((all, s) => all + (s.round < rounds ? s.tokens + s.probe : 0), 0), 0);

const toldAction = (action) => {
  if (action.refused) return `${action.do}: refused`;
  const count = numbers(action.ids ?? "").length;
  if (!count) return `${action.do}: none left`;
  const name = action.do === "fork" ? `fork of ${action.from}:` : action.do;
  const tokens = Array.isArray(action.tokens) ? action.tokens.reduce((a, b) => a + b, 0) : (action.tokens ?? 0) * count;
  return `${name} ${action.ids}${tokens ? `, +${short(tokens)} tokens` : ""}`;
};

const toldRound = (laid, rounds) => {
  if (!rounds) return "Nothing yet.";
  const round = laid.rounds[rounds - 1];
  return [`Round ${rounds} of ${laid.rounds.length}`, ...round.actions.map(toldAction),
    ...round.notes.map((note) => `note: ${note}`)].join("\n");
};

const toldBranch = (branch, rounds) => {
  const steps = branch.segments.filter((s) => s.round < rounds).map((s) =>
    `round ${s.round + 1}: ${SILENT.has(s.does) ? s.does : `+${s.tokens}`}`
    + (s.answer === null ? "" : ` shows ${letter(s.answer)}`) + (s.prm === null ? "" : `, score ${s.prm}`)
    + (s.done ? `, ended (${s.done})` : ""));
  if (branch.pruned && branch.pruned.round < rounds) steps.push(`round ${branch.pruned.round + 1}: pruned`);
  const origin = branch.from === null ? "" : `, forked from ${branch.from}`;
  return `Branch ${branch.id}${origin}\n${steps.join("\n") || "not opened yet"}`;
};
