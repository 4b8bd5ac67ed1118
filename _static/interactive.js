// Draws the interactive figures of a page, with the site's own copy of Plotly. A figure carries
// its data as JSON. Its sliders and its legend become the browser's controls, which fingers and
// keys can move and screen readers can read. A page without such a figure loads no Plotly.
(() => {
  "use strict";
  const plotly = new URL("../plotly/plotly-basic.min.js", document.currentScript.src);

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    made.append(...children);
    return made;
  };

  // One change at a time: while a slider is dragged, only its last place is drawn.
  const painter = () => {
    let next = null;
    let drawing = false;
    const draw = async () => {
      drawing = true;
      while (next) {
        const change = next;
        next = null;
        await change();
      }
      drawing = false;
    };
    return (change) => {
      next = change;
      if (!drawing) draw();
    };
  };

  const slider = (plot, { active = 0, currentvalue = {}, steps }) => {
    const name = (currentvalue.prefix ?? "Value").replace(/[:=\s]+$/, "");
    const range = element("input", { type: "range", min: 0, max: steps.length - 1, step: 1 });
    const output = element("output");
    const paint = painter();
    const say = () => {
      output.textContent = steps[range.value].label;
      range.setAttribute("aria-valuetext", steps[range.value].label);
    };
    range.value = active;
    say();
    range.addEventListener("input", () => {
      const { method, args } = steps[range.value];
      say();
      // Plotly writes into what it gets, so it gets a copy.
      paint(() => Plotly[method](plot, ...structuredClone(args)));
    });
    return element("label", { class: "tw-slider" }, element("span", {}, name), range, output);
  };

  // The traces of a legend group are shown and hidden together.
  const boxes = (plot, traces) => {
    const groups = new Map();
    traces.forEach((trace, index) => {
      if (trace.showlegend === false && !trace.legendgroup) return;
      const key = trace.legendgroup ?? trace.name;
      const group = groups.get(key) ?? { indices: [], name: trace.name, trace };
      group.indices.push(index);
      groups.set(key, group);
    });
    if (groups.size < 2) return [];
    const labels = [...groups.values()].map(({ indices, name, trace }) => {
      const box = element("input", { type: "checkbox" });
      box.checked = (trace.visible ?? true) === true;
      box.addEventListener("change", () => {
        Plotly.restyle(plot, { visible: box.checked ? true : "legendonly" }, indices);
      });
      const colour = trace.line?.color ?? trace.marker?.color ?? "currentColor";
      return element(
        "label",
        { style: `--tw-colour: ${colour}` },
        box,
        element("span", {}, name),
      );
    });
    return [element("fieldset", { class: "tw-boxes", "aria-label": "What is shown" }, ...labels)];
  };

  const draw = (figure) => {
    const plot = figure.querySelector(".tw-plot");
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    const { sliders = [], ...rest } = layout;
    const controls = element(
      "div",
      { class: "tw-controls" },
      ...boxes(plot, data),
      ...sliders.map((each) => slider(plot, each)),
    );
    plot.after(controls);
    const config = { displayModeBar: false, responsive: true, showTips: false };
    return Plotly.newPlot(plot, data, { ...rest, autosize: true, showlegend: false }, config);
  };

  const start = () => {
    const figures = document.querySelectorAll("figure.tw-interactive");
    if (figures.length === 0) return;
    const script = element("script", { src: plotly });
    script.addEventListener("load", () => figures.forEach(draw));
    document.head.append(script);
  };

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
