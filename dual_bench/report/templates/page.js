"use strict";
// What a reader can do with the page: explore the curves, hide systems in every figure, filter the sentences.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // ------------------------------------------------------------------------------------------ the page

  for (const part of all("[data-script]")) part.hidden = false;

  // On paper everything is unfolded.
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = all("details:not([open])");
    for (const part of unfolded) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of unfolded) part.open = false;
  });

  // Only what scrolls is a stop of the tab key.
  const stop = (part) => {
    part.tabIndex = part.scrollWidth > part.clientWidth ? 0 : -1;
  };
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) stop(target);
  });
  for (const part of all(".scroll")) watch.observe(part);

  // ------------------------------------------------------------------------------------- the explorer

  const json = (id) => JSON.parse(document.getElementById(id).textContent);

  // The curves of the systems that are `shown`, as the four data sources of the figure want them.
  function columns(numbers, corruption, regime, shown, banded, colour) {
    const real = (value) => value ?? NaN;
    const bands = { xs: [], ys: [], colour: [] };
    const curves = { xs: [], ys: [], colour: [], dash: [], width: [] };
    const limits = { xs: [], ys: [], colour: [], dash: [] };
    const points = { x: [], y: [], colour: [], marker: [], system: [], where: [], estimate: [], units: [] };
    const { x, where, units, ceiling, curves: found } = corruption;
    // the reference comes first, and is drawn last
    for (const [number, values, lows, highs, texts] of [...found[regime]].reverse()) {
      if (!shown.has(number)) continue;
      const [title, name, dash, marker, width] = numbers.systems[number];
      const sure = x.map((_, i) => i).filter((i) => lows[i] !== null && x[i] !== null);
      if (banded && sure.length) {
        const back = [...sure].reverse();
        bands.xs.push([...sure, ...back].map((i) => x[i]));
        bands.ys.push([...sure.map((i) => lows[i]), ...back.map((i) => highs[i])]);
        bands.colour.push(colour(name));
      }
      curves.xs.push(x.map(real));
      curves.ys.push(values.map(real));
      curves.colour.push(colour(name));
      curves.dash.push(dash);
      curves.width.push(width);
      x.forEach((at, i) => {
        points.x.push(real(at));
        points.y.push(real(values[i]));
        points.colour.push(colour(name));
        points.marker.push(marker);
        points.system.push(title);
        points.where.push(where[i]);
        points.estimate.push(texts[i]);
        points.units.push(units[i]);
      });
    }
    const limit = (xs, ys, dash) => {
      limits.xs.push(xs.map(real));
      limits.ys.push(ys.map(real));
      limits.colour.push(colour("--muted"));
      limits.dash.push(dash);
    };
    const end = Math.max(...x.map((at) => at ?? 0));
    if (numbers.floor !== null) limit([0, end], [numbers.floor, numbers.floor], [2, 4]);
    if (ceiling.length) limit(ceiling.map(([at]) => at), ceiling.map(([, value]) => value), [9, 5]);
    return { bands, curves, limits, points, end };
  }

  // The numbers of the systems that are `shown`, a row for each, in a table.
  function tabulate(table, title, numbers, corruption, regime, shown) {
    const cell = (tag, text, scope) => {
      const made = document.createElement(tag);
      made.textContent = text;
      if (scope) made.scope = scope;
      return made;
    };
    const line = (cells) => {
      const made = document.createElement("tr");
      made.append(...cells);
      return made;
    };
    table.caption.textContent = title;
    table.tHead.replaceChildren(line(["system", ...corruption.where].map((text) => cell("th", text, "col"))));
    table.tBodies[0].replaceChildren(
      ...corruption.curves[regime]
        .filter(([number]) => shown.has(number))
        .map(([number, , , , texts]) =>
          line([cell("th", numbers.systems[number][0], "row"), ...texts.map((text) => cell("td", text))]),
        ),
    );
    stop(table.parentElement);
  }

  // To a keyboard the figure is one picture, with no stop of the tab key in it.
  function still(root) {
    for (const part of root.querySelectorAll("*")) {
      if (part.tabIndex >= 0) part.tabIndex = -1;
      if (part.shadowRoot) still(part.shadowRoot);
    }
  }

  async function explore() {
    const item = json("explorer-item");
    const numbers = json("explorer-numbers");
    const form = one("#explorer-controls");
    const boxes = all("input[name=system]", form);
    const host = one("#explorer-figure");
    const seen = Bokeh.documents.length;
    await Bokeh.embed.embed_item(item);
    const made = Bokeh.documents[seen];
    const part = (name) => made.get_model_by_name(name);

    function paint() {
      const style = getComputedStyle(document.documentElement);
      const colour = (name) => style.getPropertyValue(name).trim();
      for (const axis of [part("x axis"), part("y axis")]) {
        axis.axis_line_color = axis.major_tick_line_color = colour("--muted");
        axis.axis_label_text_color = axis.major_label_text_color = colour("--ink");
      }
      for (const grid of [part("x grid"), part("y grid")]) grid.grid_line_color = colour("--line");
      const corruption = numbers.corruptions[form.elements.corruption.value];
      const regime = Number(form.elements.regime.value);
      const shown = new Set(boxes.filter((box) => box.checked).map((box) => Number(box.value)));
      const { end, ...sources } = columns(numbers, corruption, regime, shown, form.elements.bands.checked, colour);
      for (const [name, data] of Object.entries(sources)) part(name).data = data;
      part("figure").x_range.setv({ start: -0.02 * end, end: 1.02 * end });
      part("x axis").axis_label = corruption.label;
      const noise = form.elements.corruption.selectedOptions[0].text;
      const title = `${numbers.metric} under ${noise}, trained ${numbers.regimes[regime]}; in brackets 95 % intervals`;
      tabulate(one("#explorer-points table"), title, numbers, corruption, regime, shown);
      host.setAttribute("aria-label", corruption.findings[regime]);
      one("#explorer-caption").textContent = corruption.caption;
      for (const box of boxes) {
        for (const drawn of all(`svg .system-${box.value}`)) drawn.classList.toggle("away", !box.checked);
      }
    }

    form.addEventListener("change", paint);
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const button of all("button[data-all]", form)) {
      button.addEventListener("click", () => {
        for (const box of boxes) box.checked = Boolean(button.dataset.all);
        paint();
      });
    }
    dark.addEventListener("change", paint);
    paint();
    still(host);
  }

  // ------------------------------------------------------------------------------------ the sentences

  const AT_ONCE = 25; // rows that are shown before someone asks for more

  function browse() {
    const form = one("#flips-filter");
    const more = one("#flips-more");
    // What is written there, without what only a screen reader says of it.
    const written = (part) => {
      const copy = part.cloneNode(true);
      for (const said of all(".sr", copy)) said.remove();
      return copy.textContent;
    };
    const rows = all("#flips-rows tr").map((row) => ({
      row,
      text: all(".hay", row).map(written).join(" ").toLowerCase(),
      answers: all("li", row).map(({ dataset }) => ({ kind: dataset.kind, systems: dataset.systems.split(" ") })),
    }));
    let limit = AT_ONCE;

    const fits = ({ row: { dataset }, text, answers }, wanted) =>
      wanted.words.every((word) => text.includes(word)) &&
      (!wanted.where || [dataset.where, dataset.at].includes(wanted.where)) &&
      (!wanted.regime || dataset.regime === wanted.regime) &&
      answers.some(
        ({ kind, systems }) =>
          (wanted.kind ? kind === wanted.kind : kind !== "kept") && (!wanted.system || systems.includes(wanted.system)),
      );

    function filter() {
      const wanted = Object.fromEntries(new FormData(form));
      wanted.words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const entry of rows) entry.row.hidden = !fits(entry, wanted) || ++count > limit;
      const first = count > limit ? `; the first ${limit} are shown` : "";
      one("#flips-count").textContent = `${count} of ${rows.length} sentences${first}.`;
      more.hidden = count <= limit;
    }

    function afresh() {
      limit = AT_ONCE;
      filter();
    }

    form.addEventListener("input", afresh);
    form.addEventListener("reset", () => setTimeout(afresh)); // once the fields are empty
    form.addEventListener("submit", (event) => event.preventDefault());
    one("button", more).addEventListener("click", () => {
      limit += 4 * AT_ONCE;
      filter();
    });
    one("#flips").open = true;
    filter();
  }

  if (one("#flips-filter")) browse();
  if (one("#explorer-controls")) explore();
})();
