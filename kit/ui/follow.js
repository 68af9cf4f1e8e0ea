// Brings a run into view when Train is pressed. The questions above it fold to a line at that
// moment, and all beneath them moves up: without this, the run's head is behind the bar in view.
(() => {
  if (window.loraKitFollows) return;
  window.loraKitFollows = true;
  const PERIOD = 100, PATIENCE = 20000; // milliseconds
  const visible = (form) => [...form.querySelectorAll(".kit-run")].filter((run) => run.offsetParent);

  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest(".kit-train");
    const form = button && button.closest(".kit");
    if (!form) return;
    const before = new Set(visible(form));
    const until = Date.now() + PATIENCE;
    const look = () => {
      const run = visible(form).find((each) => !before.has(each));
      if (run) setTimeout(() => show(form, run), 3 * PERIOD); // what folds has folded by then
      else if (Date.now() < until) setTimeout(look, PERIOD);
    };
    setTimeout(look, PERIOD);
  });

  function show(form, run) {
    const bar = form.querySelector(".kit-sticky");
    const height = bar ? bar.getBoundingClientRect().height : 0;
    const top = run.getBoundingClientRect().top;
    const covered = bar && bar.compareDocumentPosition(run) & Node.DOCUMENT_POSITION_FOLLOWING
      ? bar.getBoundingClientRect().bottom : 0;
    const isSeen = top >= covered - 1 && top < window.innerHeight - 240;
    if (isSeen) return;
    run.style.scrollMarginTop = `${Math.ceil(height) + 16}px`;
    run.scrollIntoView({ block: "start" });
  }
})();
