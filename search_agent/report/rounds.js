// A link to a round opens it.
const reveal = () => {
  const round = at(location.hash.slice(1));
  if (round instanceof HTMLDetailsElement) { round.open = true; round.scrollIntoView(); }
};
addEventListener("hashchange", reveal);
reveal();

// The frontiers over rounds: those up to the chosen one, with it and the best of them in front.
const trails = read("trails-data");
if (trails) {
  const step = () => {
    const [now, ahead, told] = trails[Number(at("trails-at").value)];
    for (const line of document.querySelectorAll("#trails .trail")) {
      const round = Number([...line.classList].find((name) => /^r\d+$/.test(name)).slice(1));
      line.classList.toggle("later", round > now);
      line.classList.toggle("now", round === now);
      line.classList.toggle("ahead", round === ahead);
    }
    at("trails-told").textContent = `${told}${ahead === now ? "" : ` (ahead: round ${ahead})`}`;
  };
  at("trails-at").addEventListener("input", step);
  step();
}
