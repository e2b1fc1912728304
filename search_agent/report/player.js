// Two programs on one episode, side by side, on one clock.

const WIDTH = 520, EDGE = 30, FOOT = 16, TALLEST = 460, LETTER = 11;

// A timeline of one run; `to(time)` moves it. Both panes share the scale of the longer one.
const pane = (name, run, length) => {
  const title = make("h4", {}, name);
  if (!run) {
    return { node: make("div", { class: "pane" }, title, make("p", { class: "note" }, "Not shown here.")), laid: null, to() {} };
  }
  const laid = laidOut(run);
  const lane = Math.min(16, Math.max(3, TALLEST / Math.max(1, laid.branches.length)));
  const height = lane * Math.max(1, laid.branches.length) + FOOT;
  const x = (time) => EDGE + (time / Math.max(1, length)) * (WIDTH - EDGE - 14);
  const parts = [];
  const add = (node, round) => { parts.push([node, round]); return node; };
  const letters = lane >= 9;

  const bands = laid.branches.map((branch, k) =>
    draw("rect", { class: "band", x: 0, y: k * lane, width: WIDTH, height: lane, onclick: () => choose(k) }));
  const drawn = laid.branches.flatMap((branch, k) => {
    const top = k * lane, middle = top + lane / 2;
    const marks = letters || k % Math.ceil(10 / lane) === 0
      ? [draw("text", { class: "id", x: EDGE - 4, y: middle + 3.5 }, `${branch.id}`)] : [];
    let shown = null, edge = -LETTER;
    for (const s of branch.segments) {
      if (s.end > s.start) {
        marks.push(add(draw("rect", {
          class: tint(s.answer), x: x(s.start), y: top + lane * 0.12,
          width: Math.max(1, x(s.end) - x(s.start)), height: lane * 0.76,
        }), s.round));
      }
      // A letter where the answer is another one, and at the end, as far as there is room.
      if (letters && s.answer !== null && (s.answer !== shown || s.done) && x(s.end) - edge >= LETTER) {
        marks.push(add(draw("text", { x: x(s.end) - 9, y: middle + 3.5 }, letter(s.answer)), s.round));
        [shown, edge] = [s.answer, x(s.end)];
      }
      if (s.done) marks.push(add(draw("path", { d: `M${x(s.end)} ${top}v${lane}` }), s.round));
    }
    if (branch.pruned) {
      const r = Math.min(4, lane / 2), left = x(branch.pruned.time);
      marks.push(add(draw("path", { d: `M${left - r} ${middle - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}` }),
        branch.pruned.round));
    }
    return marks;
  });
  const clock = draw("line", { class: "clock", y1: 0, y2: height - FOOT });
  const svg = draw("svg", {
    class: "lanes", viewBox: `0 0 ${WIDTH} ${height}`, tabindex: 0, role: "group",
    "aria-label": `timeline of ${name}: ${laid.branches.length} branches`,
    onkeydown: (event) => {
      const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (by && laid.branches.length) {
        event.preventDefault();
        choose(Math.min(laid.branches.length - 1, Math.max(0, (chosen ?? -by) + by)));
      }
    },
  }, ...bands, ...drawn, clock,
    draw("text", { class: "id", x: WIDTH - 6, y: height - 4 }, `${short(length)} tokens on the critical path`));

  const verdict = `${run.answer === null ? "no answer" : `answers ${letter(run.answer)}`}, ${run.correct ? "right" : "wrong"}`;
  const total = make("p", { class: "meta" },
    `${verdict}; ${short(run.spent.decode + run.spent.probe + run.spent.prm)} tokens, ${short(run.spent.sequential)} sequential`
    + (run.error ? `; error: ${run.error}` : ""));
  const now = make("p", { class: "meta now" });
  const counted = make("div", { class: "votes" });
  const round = make("p", { class: "told round-told", "aria-live": "polite" });
  const lineTold = make("p", { class: "told branch-told", "aria-live": "polite" });
  let chosen = null, rounds = 0;

  const choose = (k) => {
    if (chosen !== null) bands[chosen].classList.remove("chosen");
    chosen = k;
    bands[k].classList.add("chosen");
    lineTold.textContent = toldBranch(laid.branches[k], rounds);
  };
  const to = (time) => {
    rounds = laid.rounds.filter((r) => r.end <= time && (r.end > r.start || r.start < time || time >= laid.length)).length;
    for (const [node, at] of parts) node.classList.toggle("done", at < rounds);
    const here = x(Math.min(time, laid.length));
    clock.setAttribute("x1", here);
    clock.setAttribute("x2", here);
    const over = rounds === laid.rounds.length;
    now.textContent = `after ${rounds} of ${laid.rounds.length} rounds: ${short(spent(laid, rounds))} tokens${over ? `; ${verdict}` : ""}`;
    const tally = votes(laid, rounds), most = tally.length ? tally[0][1] : 1;
    counted.replaceChildren(...tally.slice(0, 12).flatMap(([code, count]) => [
      make("b", {}, letter(code)), make("i", { class: tint(code), "--share": (100 * count) / most }), make("span", {}, `${count}`)]));
    round.textContent = toldRound(laid, rounds);
    if (chosen !== null) lineTold.textContent = toldBranch(laid.branches[chosen], rounds);
  };
  return { node: make("div", { class: "pane" }, title, total, svg, now, counted, round, lineTold), laid, to };
};

const stage = read("episodes-data");
if (stage) {
  const state = { episode: 0, left: 0, right: Math.min(1, stage.programs.length - 1) };
  const here = make("div", { class: "pair" });
  const told = make("output", { id: "player-told" });
  const slider = make("input", { type: "range", id: "player-at", min: 0, "aria-label": "time", oninput: () => move(Number(slider.value)) });
  const play = make("button", { type: "button", id: "player-play", onclick: () => (timer ? stop() : start()) }, "Play");
  let panes = [], times = [0], timer = null;

  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  const start = () => {
    if (Number(slider.value) === times.length - 1) move(0);
    timer = setInterval(() => (Number(slider.value) < times.length - 1 ? move(Number(slider.value) + 1) : stop()), 350);
    play.textContent = "Pause";
  };
  const move = (k) => {
    const place = Math.min(times.length - 1, Math.max(0, k));
    slider.value = place;
    for (const each of panes) each.to(times[place]);
    told.textContent = `${short(Math.max(0, times[place]))} tokens into it`;
  };
  const change = () => {
    stop();
    const { runs } = stage.episodes[state.episode];
    const chosen = [state.left, state.right];
    const length = Math.max(1, ...chosen.map((k) => (runs[k] ? laidOut(runs[k]).length : 0)));
    panes = chosen.map((k) => pane(stage.programs[k], runs[k], length));
    // A moment before anything happened, then the end of each round of either.
    times = [-1, ...new Set(panes.flatMap((p) => (p.laid ? p.laid.rounds.map((r) => r.end) : [])))].sort((a, b) => a - b);
    slider.max = times.length - 1;
    here.replaceChildren(...panes.map((p) => p.node));
    move(times.length - 1);
  };
  const button = (label, words, by) =>
    make("button", { type: "button", "aria-label": words, onclick: () => { stop(); move(by()); } }, label);

  at("episodes-here").append(
    make("div", { class: "controls" },
      chooser("episode", stage.episodes.map((e) => `${e.where}: ${e.why}`), 0, (k) => { state.episode = k; change(); })),
    make("div", { class: "controls" },
      chooser("left", stage.programs, state.left, (k) => { state.left = k; change(); }),
      chooser("right", stage.programs, state.right, (k) => { state.right = k; change(); })),
    make("div", { class: "controls" },
      button("|◀", "to the beginning", () => 0), button("◀", "one step back", () => Number(slider.value) - 1), play,
      button("▶", "one step on", () => Number(slider.value) + 1), button("▶|", "to the end", () => times.length - 1),
      slider, told),
    here);
  change();
}
