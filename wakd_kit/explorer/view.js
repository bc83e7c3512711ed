// The explorer's one view, used by the notebook (anywidget gives the model) and by pages (a plain object does).
// What stays is drawn once as SVG that stretches with its box; what moves is placed in per cent of that box.

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "wk-explorer";
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the arrow keys
  el.append(root);

  const answers = new Map(); // exact scores by what they are of
  let d, shown, held, resting;
  let covered; // whether what looks at the unseen domain is: as the first run says, then as the reader does
  const flags = location.hash.slice(1).split("&"); // of a page's address; a heading that has such a word in it is none
  let large = flags.includes("large");
  let stop = 0; // of the tour, from 1
  const linked = Boolean(el.closest("[data-linked]")); // a page of its own, whose address says what is shown
  const find = (selector) => root.querySelector(selector);
  const all = (selector) => [...root.querySelectorAll(selector)];
  const key = (what) => `${d.id}\n${what.key ?? `${what.begin}-${what.end}`}`;

  // ---- what is shown: a window of one's own, looked up in the tables, or what a strategy picked

  function windowed([begin, end]) {
    const accuracy = d.windows[`${begin}-${end}`] ?? null;
    const bars = d.segments.filter(([low, high]) => low >= begin && high <= end).map(([low, high]) => [low, high, 1]);
    const source = accuracy ? (d.exact ? "map" : "proxy") : "";
    return { label: "Your window", begin, end, window: [begin, end], bars, accuracy, source, place: d.places[`${begin}-${end}`] };
  }

  function own(begin, end) {
    show(windowed([begin, end]));
    model.set("pick", {});
    model.set("window", [begin, end]);
    model.save_changes();
  }

  // Once nothing has moved for a moment it is said aloud, unless a slider has said it, and the kernel is asked for the exact
  // score; a page has no kernel.
  function rest() {
    clearTimeout(resting);
    if (held) return;
    resting = setTimeout(() => {
      const said = shown.problem ? `${shown.label}: ${shown.problem}` : `${shown.label}: ${spoken(shown)}; ${verdict()}`;
      if (!root.contains(document.activeElement) || document.activeElement.getAttribute("role") !== "slider") find(".wk-said").textContent = said;
      if (d.asks && !shown.problem && shown.source !== "evaluated") ask(key(shown));
    }, 250);
  }

  function ask(what) {
    model.set("asked", what);
    model.save_changes();
  }

  function answered() {
    const answer = model.get("answer");
    if (answer.problem) {
      if (shown && answer.key === key(shown)) find(".wk-source").textContent = "not evaluated";
      model.set("asked", ""); // so that it can be asked again
      model.save_changes();
      return;
    }
    answers.set(answer.key, answer.accuracy);
    if (shown && answer.key === key(shown)) show(shown);
  }

  // ---- moving things

  function show(next) {
    const exact = answers.get(key(next));
    shown = exact ? { ...next, accuracy: exact, source: "evaluated" } : next;
    const none = Boolean(shown.problem);
    root.classList.toggle("wk-none", none);
    find(".wk-what").textContent = none ? shown.label : `${shown.label}: ${spoken(shown)}`;
    find(".wk-verdict").innerHTML = none ? "" : headline();
    root.style.setProperty("--wk-own", shown.colour ?? "var(--wk-edge)");
    find(".wk-note").textContent = none ? shown.problem : shown.note ?? `${shown.end - shown.begin} of ${d.steps} iterates, all weighing the same`;
    find(".wk-source").textContent = none ? "" : SOURCES[shown.source] ?? (d.asks ? "evaluating …" : "");
    find(".wk-source").dataset.source = none ? "" : shown.source;
    all(".wk-preset").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.label === shown.label)));
    band();
    along();
    find(".wk-strip svg").innerHTML = none ? "" : strip();
    score();
    points();
    rest();
    link();
  }

  // #window=60-300&guess&large&tour=2: what is shown, for whoever gets the address
  function link() {
    if (!linked) return;
    const parts = [shown.window && `window=${shown.window.join("-")}`, covered && "guess", large && "large", stop && `tour=${stop}`];
    try {
      history.replaceState(null, "", `#${parts.filter(Boolean).join("&")}`);
    } catch {} // a page within another has no address of its own
  }

  function linkedWindow() {
    const [, begin, end] = location.hash.match(/window=(\d+)-(\d+)/) ?? [];
    const [b, e] = [begin, end].map((step) => d.edges.indexOf(Number(step)));
    return linked && b >= 0 && e > b ? [d.edges[b], d.edges[e]] : null;
  }

  // ---- a tour of five stops: predict, run, explain

  // Only turning to a stop does what it says: one that is drawn again leaves what the reader has done since.
  function guide(next) {
    const [before, turned] = [stop, next !== stop];
    stop = next > TOUR.length ? 0 : next;
    const box = find(".wk-tour");
    box.hidden = !stop;
    if (stop) {
      const { title, text, asking, still, cover, preset } = TOUR[stop - 1];
      if (turned && cover !== undefined) covered = cover || (!before && covered); // an address uncovers nothing
      find(".wk-stop").innerHTML = `<b>${stop} of ${TOUR.length}. ${title}</b> ${(d.asks && asking) || (covered && still) || text}`;
      find("[data-tour=back]").disabled = stop === 1;
      find("[data-tour=next]").textContent = stop === TOUR.length ? "End of the tour" : "Next";
      const average = d.presets.findIndex((p) => p.window && p.end - p.begin > 1);
      if (turned && preset && average >= 0) shown = d.presets[average];
    }
    tools();
  }

  function band() {
    const [begin, end] = shown.problem ? [0, d.steps] : [shown.begin, shown.end]; // without a window one can be begun from there
    const said = shown.problem ? `${shown.label}: ${shown.problem}` : `${spoken(shown)}; ${verdict()}`;
    const [left, right] = [begin, end].map((step) => (100 * step) / d.steps);
    for (const shade of all(".wk-band, .wk-shade")) Object.assign(shade.style, { left: `${left}%`, width: `${right - left}%` });
    find(".wk-begin").style.left = `${left}%`;
    find(".wk-end").style.left = `${right}%`;
    for (const handle of all("[role=slider]")) {
      handle.setAttribute("aria-valuenow", handle.dataset.moves === "end" ? end : begin);
      handle.setAttribute("aria-valuetext", said);
    }
  }

  // What averages from the same first iterate are worth on source validation at every step: how early is one as good as the last?
  function along() {
    const box = find(".wk-along");
    if (!box) return;
    const [low, high] = d.curves.find((c) => c.along).limits;
    const begin = shown.problem ? d.steps : d.edges[nearest(shown.begin)]; // a strategy may begin between two edges of the map
    const so = d.edges.filter((e) => e > begin).map((e) => [e, d.windows[`${begin}-${e}`]?.[1] ?? null]);
    box.setAttribute("d", path(so.filter(([, v]) => v !== null), (v) => v / d.steps, (v) => (high - 100 * v) / (high - low)));
  }

  function verdict() {
    if (!shown.accuracy) return "not evaluated";
    const row = covered ? 1 : 0;
    const [now, last] = [shown.accuracy[row], d.last[row]];
    const name = covered ? "source validation" : "unseen domain (oracle)";
    if (now === null) return `${name} without an accuracy: this average diverged`;
    return `${name} ${percent(now)} %, ${last === null ? "and the last iterate diverged" : `${signed(now - last)} points to the last iterate`}`;
  }

  // What averaging does, last iterate to this average, on the unseen domain or, while that is covered, on source validation.
  function headline() {
    const row = covered ? 1 : 0;
    const now = shown.accuracy?.[row] ?? null;
    if (now === null || d.last[row] === null) return "";
    const gain = now - d.last[row];
    const sign = Math.sign(Math.round(1000 * gain));
    const name = covered ? "source validation" : safe(d.target);
    return `${name} ${percent(d.last[row])} → ${percent(now)}, <b class="wk-gain" data-sign="${sign}">${signed(gain)}</b>${covered ? "" : " <em class=\"wk-oracle\">oracle</em>"}`;
  }

  const spoken = ({ begin, end }) => (end - begin > 1 ? `iterates ${begin + 1} to ${end}` : `iterate ${end}`);

  function score() {
    const at = (v) => 100 * Math.min(Math.max((v - d.low) / (1 - d.low), 0), 1);
    all(".wk-accuracy tbody tr").forEach((row, i) => {
      const hide = covered && i === 0;
      const now = shown.problem || hide ? null : shown.accuracy?.[i] ?? null;
      const gain = now === null || d.last[i] === null ? null : now - d.last[i];
      row.querySelector(".wk-last").textContent = hide ? "?" : percent(d.last[i]);
      row.querySelector(".wk-now").textContent = hide ? "?" : percent(now);
      const cell = row.querySelector(".wk-gain");
      cell.textContent = hide ? "?" : gain === null ? "–" : signed(gain);
      cell.dataset.sign = gain === null ? 0 : Math.sign(Math.round(1000 * gain));
      const [ring, dot, line] = [".wk-ring", ".wk-dot", ".wk-move"].map((s) => row.querySelector(s));
      ring.hidden = hide || d.last[i] === null;
      dot.hidden = now === null;
      line.hidden = gain === null;
      ring.style.left = `${at(d.last[i])}%`;
      dot.style.left = `${at(now)}%`;
      Object.assign(line.style, {
        left: `${at(Math.min(now, d.last[i]))}%`,
        width: `${Math.abs(at(now) - at(d.last[i]))}%`,
      });
    });
  }

  function points() {
    for (const map of all(".wk-map")) {
      const window = shown.problem ? null : shown.window;
      map.classList.toggle("wk-off", !window);
      if (!window) continue;
      put(map.querySelector(".wk-here"), window[1] / d.steps, window[0] / d.steps);
      const [left, right, top, bottom] = cell(d, window).map((step) => `${(100 * step) / d.steps}%`);
      map.querySelector(".wk-cell").hidden = !window.every((step) => d.edges.includes(step)); // else the cell is of another window
      Object.assign(map.querySelector(".wk-cell").style, { left, top, right: `calc(100% - ${right})`, bottom: `calc(100% - ${bottom})` });
    }
    for (const plane of all(".wk-plane")) {
      plane.classList.toggle("wk-off", shown.problem || !drawn(shown.place));
      if (shown.place) put(plane.querySelector(".wk-here"), share(d.plane.x, shown.place[0]), 1 - share(d.plane.y, shown.place[1]));
    }
    if (d.plane) find(".wk-residual").textContent = shown.problem ? "" : beside(shown.place);
  }

  const drawn = (place) => place && [d.plane.x, d.plane.y].every((limits, i) => Math.abs(share(limits, place[i]) - 0.5) <= 0.5);

  function beside(place) {
    if (!d.plane.placed) return "This plane goes through points of other runs or settings: where an average lies on it cannot be told from here.";
    if (!place) return "";
    const [off, width] = [place[2], d.plane.x[1] - d.plane.x[0]].map((v) => v.toLocaleString("en", { maximumSignificantDigits: 2 }));
    const lies = place[2] < 0.01 * (d.plane.x[1] - d.plane.x[0]) ? "lies on the plane" : `lies ${off} beside it, so the colour under its point is not its own loss`;
    return `The plane is a flat cut through parameter space, ${width} wide; the line on it is the path of training. This average ${lies}${drawn(place) ? "" : ", outside of what is drawn"}.`;
  }

  // ---- hands and keys

  const nearest = (step) => d.edges.reduce((best, edge, i) => (Math.abs(edge - step) < Math.abs(d.edges[best] - step) ? i : best), 0);

  function grip() {
    if (shown.problem) own(d.edges[0], d.edges.at(-1));
    const b = Math.min(nearest(shown.begin), d.edges.length - 2);
    return [b, Math.max(nearest(shown.end), b + 1)];
  }

  function move(moves, [b, e], by) {
    const last = d.edges.length - 1;
    if (moves === "begin") b = Math.min(Math.max(b + by, 0), e - 1);
    if (moves === "end") e = Math.max(Math.min(e + by, last), b + 1);
    if (moves === "both") [b, e] = [b, e].map((i) => i + Math.min(Math.max(by, -b), last - e));
    if (d.edges[b] !== shown.begin || d.edges[e] !== shown.end || !shown.window) own(d.edges[b], d.edges[e]);
  }

  function grab(event) {
    const timeline = event.target.closest(".wk-timeline");
    const map = event.target.closest(".wk-map .wk-box");
    if (event.button || !(timeline || map)) return;
    const box = timeline ? find(".wk-over") : map;
    const [step, down] = where(box, event);
    if (step < -0.02 * d.steps || step > 1.02 * d.steps) return;
    event.preventDefault();
    if (timeline) {
      const [b, e] = grip();
      const close = (8 / box.clientWidth) * d.steps;
      const inside = step > shown.begin + close && step < shown.end - close;
      const nearer = Math.abs(step - shown.begin) < Math.abs(step - shown.end) ? "begin" : "end";
      held = { box, moves: inside ? "both" : nearer, from: step, grip: [b, e] };
      find(`[data-moves=${held.moves}]`).focus({ preventScroll: true });
    } else {
      held = { box, moves: "map" };
    }
    root.setPointerCapture(event.pointerId);
    root.classList.add("wk-held");
    drag(event, step, down);
  }

  function drag(event, step, down) {
    if (held.moves === "map") {
      const e = Math.max(d.edges.findIndex((edge) => edge >= Math.min(step, d.steps)), 1);
      const b = Math.min(d.edges.findLastIndex((edge) => edge <= Math.max(down, 0)), e - 1);
      move("map", [b, e], 0);
    } else {
      const [b, e] = held.grip;
      const start = held.moves === "end" ? e : b;
      const target = held.moves === "both" ? d.edges[b] + step - held.from : step;
      if (held.moves !== "both" || step !== held.from) move(held.moves, held.grip, nearest(target) - start);
    }
  }

  function where(box, event) {
    const { left, top, width, height } = box.getBoundingClientRect();
    return [((event.clientX - left) / width) * d.steps, ((event.clientY - top) / height) * d.steps];
  }

  root.addEventListener("pointerdown", grab);
  root.addEventListener("pointermove", (event) => held && drag(event, ...where(held.box, event)));
  for (const end of ["pointerup", "pointercancel"]) {
    root.addEventListener(end, () => {
      if (!held) return;
      held = null;
      root.classList.remove("wk-held");
      rest();
    });
  }
  root.addEventListener("keydown", (event) => {
    const moves = event.target.dataset?.moves;
    const by = STEPS[event.key];
    if (!moves || by === undefined) return;
    event.preventDefault();
    move(moves, grip(), by);
  });
  root.addEventListener("click", (event) => {
    const preset = event.target.closest(".wk-preset");
    if (preset) show(d.presets[preset.dataset.preset]);
    const tool = event.target.closest(".wk-tool")?.dataset.tool;
    if (tool === "cover") {
      covered = !covered;
      guide(stop); // which says it otherwise then
    }
    if (tool === "large") large = !large;
    if (tool === "tour") guide(stop ? 0 : 1);
    else if (tool) tools();
    const turn = event.target.closest("[data-tour]")?.dataset.tour;
    if (turn) guide(turn === "next" ? stop + 1 : stop - 1);
  });
  root.addEventListener("toggle", (event) => event.target.open && event.target.matches(".wk-numbers") && numbers(), true);

  function tools() {
    root.classList.toggle("wk-covered", covered);
    root.classList.toggle("wk-large", large);
    document.documentElement.classList.toggle("wk-large-page", large && !d.asks);
    for (const [tool, on] of [["cover", covered], ["large", large], ["tour", stop > 0]]) find(`[data-tool=${tool}]`).setAttribute("aria-pressed", String(on));
    if (find(".wk-numbers").open) numbers();
    if (shown) show(shown);
  }

  // Every window as a table, for whoever cannot see the maps; made when it is asked for.
  function numbers() {
    const rows = d.rows.map((name, i) => [name, i]).slice(covered ? 1 : 0);
    const head = rows.map(([name, i]) => `<th scope="col">${safe(name.replaceAll("_", " "))}${i ? "" : ", unseen: oracle"}</th>`).join("");
    const body = Object.entries(d.windows).map(([window, accuracy]) => {
      const [begin, end] = window.split("-").map(Number);
      return `<tr><th scope="row">${begin + 1} to ${end}</th>${rows.map(([, i]) => `<td>${percent(accuracy[i])}</td>`).join("")}</tr>`;
    });
    find(".wk-every").innerHTML = `<table><caption>Accuracy of every window in %, ${d.exact ? "exact" : "quick estimates (proxy)"}</caption>
      <thead><tr><th scope="col">iterates</th>${head}</tr></thead><tbody>${body.join("")}</tbody></table>`;
  }

  // ---- drawing what stays

  function start() {
    clearTimeout(resting);
    shown = held = null;
    d = model.get("data"); // {} when no run is open
    const known = model.get("answer"); // what another view has asked for, and is not answered twice
    if (known?.accuracy) answers.set(known.key, known.accuracy);
    root.innerHTML = d.name ? skeleton(d) : "";
    if (d.name) {
      const asked = linkedWindow();
      const begun = covered === undefined ? Number(location.hash.match(/tour=([1-5])/)?.[1] ?? 0) : stop;
      covered ??= Boolean(d.hidden) || flags.includes("guess");
      root.classList.toggle("wk-covered", covered); // before anything is shown
      follow();
      guide(begun);
      if (asked) show(windowed(asked));
    }
    if (d.asks && d.exact === null) ask(`${d.id}\nmap`);
  }

  function follow() {
    const pick = model.get("pick");
    const window = model.get("window");
    if (pick.label) show(pick);
    else if (window.length) show(windowed(window));
  }

  // Coefficients of iterates, the start's hatched; negative ones hang below a line.
  function strip() {
    const below = shown.bars.some(([, , height]) => height < 0);
    const zero = below ? 500 : 1000;
    const line = below ? '<line class="wk-zero" x1="0" x2="1000" y1="500" y2="500"/>' : "";
    return line + shown.bars.map(([low, high, height, start]) => bar(low, high, height * zero, zero, start)).join("");
  }

  function bar(low, high, height, zero, start) {
    const names = [height < 0 && "wk-negative", start && "wk-start"].filter(Boolean).join(" ");
    const [x, width] = [low, high - low].map((steps) => (1000 * steps) / d.steps);
    return `<rect class="${names}" x="${x}" y="${zero - Math.max(height, 0)}" width="${width}" height="${Math.abs(height)}"/>`;
  }

  model.on("change:data", start);
  model.on("change:pick", () => model.get("pick").label && follow()); // empty: a window is shown
  model.on("change:window", () => {
    const [begin, end] = model.get("window");
    if (end && !model.get("pick").label && key(shown ?? {}) !== key({ begin, end })) follow(); // the kernel chose it, no hand here
  });
  model.on("change:answer", answered);
  start();
}

const TOUR = [
  { title: "One training.", text: "The curves are what was measured on validation images of the source domains while one network was trained. Every average on this page is of its steps: the shaded window says of which." },
  { title: "Predict.", text: "What the unseen domain says is covered. By the curves alone, drag the window to where you would average, and say how many points it will gain there.", cover: true },
  { title: "Run.", text: "Uncovered: the line above the curves says what your window is worth on the unseen domain, and the table of accuracies what on each domain. By how much were you off?", still: "Uncover the unseen domain: the line above the curves will say what your window is worth there, and the table of accuracies what on each domain. By how much were you off?", cover: false },
  { title: "Compare.", text: "This is what a strategy picks that nobody steered by hand. Try the others: which of them follow a curve, and which a rule settled before training?", asking: "Under Average, above the picture, strategies pick a window that nobody steered by hand: which of them follow a curve, and which a rule settled before training?", preset: true },
  { title: "Explain.", text: "In the map every window is a cell. Click near the diagonal, where windows hold few iterates, then in the top row, where they begin with the first step, then between. Which is best here, and why?" },
];
const SHADE = '<i class="wk-shade"></i>';
const SOURCES = { evaluated: "exact", map: "exact, from the window map", proxy: "quick estimate (proxy)" };
const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5, Home: -1e6, End: 1e6 };

const percent = (v) => (v === null ? "–" : (100 * v).toFixed(1));
const signed = (v) => `${["−", "±", "+"][Math.sign(Math.round(1000 * v)) + 1]}${Math.abs(100 * v).toFixed(1)}`;
const safe = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const share = ([low, high], v) => (v - low) / (high - low);
const put = (mark, x, y) => Object.assign(mark.style, { left: `${100 * x}%`, top: `${100 * y}%` });

// A box of data: SVG that stretches, tick labels that do not. x and y give shares from the left and from the top.
function plot({ kind, x, y, xticks, yticks, marks, inside = "", shape }) {
  const grid = yticks.map(([v]) => `<line class="wk-rule" x1="0" x2="1000" y1="${1000 * y(v)}" y2="${1000 * y(v)}"/>`).join("");
  const below = xticks.map(([v, text]) => `<span class="wk-x" style="left:${100 * x(v)}%">${text}</span>`).join("");
  const beside = yticks.map(([v, text]) => `<span class="wk-y" style="top:${100 * y(v)}%">${text}</span>`).join("");
  const svg = `<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">${grid}${marks}</svg>`;
  return `<div class="wk-box wk-${kind}"${shape ? ` style="aspect-ratio:${shape}"` : ""}>${svg}${below}${beside}${inside}</div>`;
}

const path = (points, x, y) => points.map(([a, b], i) => `${i ? "L" : "M"}${(1000 * x(a)).toFixed(1)} ${(1000 * y(b)).toFixed(1)}`).join("");
const labelled = (values) => values.map((v) => [v, v.toLocaleString("en", { maximumSignificantDigits: 6 })]);

function curve(d, { title, unit, limits, ticks, logarithmic, lines, along }) {
  const sofar = along && Object.keys(d.windows).length > 0;
  const f = logarithmic ? Math.log : (v) => v;
  const [low, high] = limits.map(f);
  const x = (v) => v / d.steps;
  const y = (v) => (high - f(v)) / (high - low);
  const style = (line) => `style="--wk-colour:${line.colour}" stroke-dasharray="${line.dash}"${line.wide ? ' class="wk-wide"' : ""}`;
  const marks = lines.map((line) => `<path d="${path(line.points, x, y)}" ${style(line)}/>`).join("") + (sofar ? '<path class="wk-along" d=""/>' : "");
  const entry = (drawn, name) => `<span><svg width="22" height="8" aria-hidden="true"><path d="M0 4H22" ${drawn}/></svg> ${safe(name)}</span>`;
  const legend = lines.map((line) => entry(style(line), line.name)).join("") + (sofar ? entry('class="wk-sofar"', along) : "");
  return `<div class="wk-title"><b>${safe(title)}</b> <span class="wk-unit">${safe(unit)}</span></div><div class="wk-legend">${legend}</div>
    ${plot({ kind: "curve", x, y, xticks: [], yticks: labelled(ticks), marks, inside: SHADE })}`;
}

function timeline(d) {
  const handle = (moves, label) =>
    `<div class="wk-handle wk-${moves}" role="slider" tabindex="0" data-moves="${moves}" aria-label="${label}" aria-valuemin="0" aria-valuemax="${d.steps}"></div>`;
  const strip = plot({ kind: "strip", x: (v) => v / d.steps, y: (v) => 1 - v, xticks: labelled(d.ticks), yticks: [], marks: "", inside: SHADE });
  return `<div class="wk-timeline" role="group" aria-label="${safe(d.alt)}">${d.curves.map((c) => curve(d, c)).join("")}
    <div class="wk-title"><b>Coefficients</b> <span class="wk-unit">how much of each iterate the average takes</span></div>${strip}
    <div class="wk-axis">${d.step ?? "optimiser step"}</div>
    <div class="wk-over"><div class="wk-band" role="slider" tabindex="0" data-moves="both" aria-label="The whole window" aria-valuemin="0" aria-valuemax="${d.steps}"></div>
    ${handle("begin", "The window begins after step")}${handle("end", "The window ends with step")}</div></div>`;
}

function accuracies(d) {
  const rows = d.rows.map((name, i) => {
    const note = i === 0 ? "<small>unseen: oracle</small>" : "";
    return `<tr class="${["wk-unseen", "wk-mean"][i] ?? ""}"><th scope="row">${safe(name.replaceAll("_", " "))} ${note}</th>
      <td class="wk-dots"><div><i class="wk-move"></i><i class="wk-ring"></i><i class="wk-dot"></i></div></td>
      <td class="wk-last"></td><td class="wk-now"></td><td class="wk-gain"></td></tr>`;
  });
  return `<table class="wk-accuracy"><thead><tr><th scope="col">Accuracy, %</th>
    <th scope="col"><span class="wk-ends"><span>${Math.round(100 * d.low)}</span><span>100</span></span></th>
    <th scope="col"><i class="wk-ring"></i> last iterate</th><th scope="col"><i class="wk-dot"></i> this average</th><th scope="col">change</th></tr></thead>
    <tbody>${rows.join("")}</tbody></table>
    <p class="wk-hint">Nobody has labels of the unseen domain when choosing a window: its row, and every picture marked <em>oracle</em>,
    is for looking and learning. Choose by the source domains, whose numbers are of their validation parts.</p>`;
}

function ramp({ colours, labels, unit }) {
  const stops = colours.join(", ");
  return `<div class="wk-ramp"><span>${labels[0]}</span><i style="background:linear-gradient(90deg, ${stops})"></i><span>${labels[1]}</span> ${safe(unit)}</div>`;
}

function field({ kind, title, oracle, alt, scale, body, noise }) {
  const badge = oracle ? ' <em class="wk-oracle">oracle</em>' : "";
  const below = noise ? `<div class="wk-noise"><svg width="16" height="10" aria-hidden="true"><path d="M0 10 10 0M6 10 16 0"/></svg> ${safe(noise)}</div>` : "";
  const whole = `<div class="wk-field wk-${kind}${oracle ? " wk-unseen-field" : ""}" role="img" aria-label="${safe(alt)}"><div class="wk-title"><b>${safe(title)}</b>${badge}</div>${body}${ramp(scale)}${below}</div>`;
  return oracle ? `${whole}<p class="wk-guess">Covered: what the unseen domain says. Choose by the source domains first, then show it.</p>` : whole;
}

function map(d, m) {
  const x = (v) => v / d.steps;
  const marks = m.cells
    .map(([left, right, top, bottom, colour]) => {
      const [x0, x1, y0, y1] = [left, right, top, bottom].map((step) => 1000 * x(step));
      return `<rect x="${x0}" y="${y0}" width="${x1 - x0}" height="${y1 - y0}" fill="${colour}"/>`;
    })
    .join("");
  // in pixels, not in the box's stretched units: the lines of every cell have one slope
  const hatched = m.cells
    .filter(([, , , , , alike]) => alike)
    .map(([left, right, top, bottom]) => {
      const [l, r, t, b] = [left, right, top, bottom].map((step) => 100 * x(step));
      return `<i class="wk-alike" style="left:${l}%;top:${t}%;width:${r - l}%;height:${b - t}%"></i>`;
    })
    .join("");
  const marked = m.marks.map(({ window, label, colour }) => ({ x: x(window[1]), y: x(window[0]), label, colour }));
  const ticks = labelled(d.ticks);
  // the corner where a window would end before it begins has room for words
  const words = '<p class="wk-words"><i class="wk-point"></i> this average <br><span class="wk-spot"></span> strategies</p><p class="wk-words wk-nowhere">This average is not the mean of one window: it has no place here.</p>';
  const body = plot({ kind: "cells", x, y: x, xticks: ticks, yticks: ticks, marks, inside: `${hatched}${words}<i class="wk-cell"></i>${spots(marked)}<i class="wk-point wk-here"></i>` });
  return field({ kind: "map", ...m, body: `${body}<div class="wk-axis">window ends at step → &nbsp; begins after step ↓</div>` });
}

// Labelled spots, given as shares from the left and from the top. A label stands on the side with more room, and on the
// other one where the label above it is too near.
function spots(marks) {
  let above = { x: -1, y: -1 };
  const inside = marks.filter(({ x, y }) => Math.min(x, y, 1 - x, 1 - y) >= 0).sort((a, b) => a.y - b.y);
  return inside.map(({ x, y, label, colour }) => {
    const near = y - above.y < 0.08 && Math.abs(x - above.x) < 0.3;
    const left = x > 0.8 || (x > 0.2 && (near ? !above.left : x > 0.5));
    above = { x, y, left };
    return `<span class="wk-spot${left ? " wk-left" : ""}" style="left:${100 * x}%;top:${100 * y}%;--wk-spot:${colour ?? "#fff"}">${safe(label)}</span>`;
  }).join("");
}

// The sides of a window's cell in its map, in steps: left, right, top, bottom.
function cell({ edges }, [begin, end]) {
  const e = Math.max(edges.findIndex((edge) => edge >= end), 1);
  const b = Math.min(edges.findLastIndex((edge) => edge <= begin), edges.length - 2);
  return [edges[e - 1], edges[e], edges[b], edges[b + 1]];
}

function plane(d, p) {
  const x = (v) => share(d.plane.x, v);
  const y = (v) => 1 - share(d.plane.y, v);
  const fills = p.fills.map(({ colour, paths }) => `<path fill="${colour}" fill-rule="evenodd" d="${paths.map((points) => path(points, x, y) + "Z").join("")}"/>`);
  const steps = path(d.plane.path, x, y);
  const walk = `<path class="wk-walk wk-under" d="${steps}"/><path class="wk-walk" d="${steps}"/>`;
  const marked = d.plane.marks.map(({ at, label, colour }) => ({ x: x(at[0]), y: y(at[1]), label, colour }));
  const [xticks, yticks] = [d.plane.xticks, d.plane.yticks].map(labelled);
  const body = plot({ kind: "contours", shape: d.plane.shape, x, y, xticks, yticks, marks: fills.join("") + walk, inside: `${spots(marked)}<i class="wk-point wk-here"></i>` });
  return field({ kind: "plane", ...p, body: `${body}<div class="wk-axis">${safe(d.plane.axes)}</div>` });
}

function skeleton(d) {
  const presets = d.presets.map(
    (p, i) => `<button type="button" class="wk-preset" data-preset="${i}" data-label="${safe(p.label)}" aria-pressed="false" style="--wk-colour:${p.colour}"><i class="wk-swatch"></i>${safe(p.label)}</button>`,
  );
  const maps = d.maps.map((m) => map(d, m)).join("") || `<p class="wk-hint">${d.exact === null ? "No window map yet: it shows every window at once." : "A map of windows, none of which has an accuracy: training diverged."}</p>`;
  const planes = d.plane ? d.plane.panels.map((p) => plane(d, p)).join("") : '<p class="wk-hint">No loss plane yet: the notebook 04_landscape computes one.</p>';
  const tool = (name, text) => `<button type="button" class="wk-tool" data-tool="${name}" aria-pressed="false">${text}</button>`;
  return `<p class="wk-about">${safe(d.about)} <span class="wk-how">Drag the shaded window or its edges, click into a map, or use the arrow keys.</span></p>
    <div class="wk-bar">${presets.length ? `<div class="wk-presets" role="group" aria-label="What strategies pick">${presets.join("")}</div>` : ""}
    <div class="wk-tools" role="group" aria-label="View">${tool("cover", "Cover the unseen domain")}${tool("large", "Large type")}${tool("tour", "Tour")}</div></div>
    <div class="wk-tour" role="region" aria-label="Tour" hidden><p class="wk-stop" aria-live="polite"></p>
    <button type="button" class="wk-tool" data-tour="back">Back</button><button type="button" class="wk-tool" data-tour="next">Next</button></div>
    <div class="wk-head"><div class="wk-line"><strong class="wk-what"></strong> <span class="wk-verdict"></span> <span class="wk-source"></span></div><div class="wk-note"></div></div>
    <div class="wk-said" role="status" aria-live="polite"></div>
    <div class="wk-top">${timeline(d)}<div class="wk-side">${accuracies(d)}</div></div>
    <div class="wk-fields">${maps}${planes}</div><p class="wk-hint wk-residual"></p>
    <details class="wk-numbers"><summary>Every window, in numbers</summary><div class="wk-every" tabindex="0" role="region" aria-label="Accuracy of every window"></div></details>`;
}
