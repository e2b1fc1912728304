// The matrix of outcomes at one beta, on one part of the problems.
const outcomes = read("outcomes-data");
if (outcomes) {
  const parts = [...new Set(outcomes.rows.map((row) => row.part))];
  const state = { beta: Math.floor(outcomes.betas.length / 2), part: 0 };

  const cell = (row, program, figures) => {
    if (!figures) return make("td", { "--share": 0 }, "");
    const [share, tokens, sequential, episodes] = figures;
    const title = `${outcomes.programs[program]}, ${outcomes.stores[row.store] ?? row.store}, ${row.problem}: `
      + `${share}% of ${episodes} episodes, ${short(tokens)} tokens, ${short(sequential)} on the critical path`;
    return make("td", { "--share": share, title }, `${share}`);
  };
  const show = () => {
    const head = make("tr", {}, make("th", { scope: "col" }, "problem"),
      ...outcomes.programs.map((name) => make("th", { scope: "col" }, name.replaceAll("_", "_\u200b"))));
    const rows = outcomes.rows.filter((row) => row.part === parts[state.part]).map((row) =>
      make("tr", {}, make("th", { scope: "row" }, `${row.store} ${row.problem}`),
        ...row.cells.map((betas, program) => cell(row, program, betas[state.beta]))));
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  };

  const table = make("table");
  at("outcomes-here").append(
    make("div", { class: "controls" },
      radios("beta", "outcomes-beta", outcomes.betas.map(String), state.beta, (k) => { state.beta = k; show(); }),
      radios("problems", "outcomes-part", parts, state.part, (k) => { state.part = k; show(); })),
    make("div", { class: "outcomes", tabindex: 0, role: "region", "aria-label": "outcomes by problem" }, table));
  show();
}
