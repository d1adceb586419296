// Draws each figure's data with Observable Plot, at the width that there is. Texts of a run only ever become text nodes.
"use strict";
(() => {
  const color = index => `var(--c${index % 8})`;
  const dash = index => (index % 8 < 4 ? undefined : "6 3");
  const short = value => (value == null ? "" : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(2) : String(Number(value.toPrecision(4))));
  const ticks = value => (Math.abs(value) >= 1e3 ? d3.format("~s")(value) : value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(0) : d3.format("~g")(value));
  const style = { fontSize: "12px", fontFamily: "inherit", overflow: "visible" };

  const tip = (data, options) => Plot.tip(data, { ...options, lineHeight: 1.25 });

  function legend(names, colors, solid) {
    if (names.length < 2) return null;
    const list = document.createElement("ul");
    list.className = "legend";
    for (const name of names) {
      const index = colors.indexOf(name);
      const item = document.createElement("li");
      item.innerHTML = `<svg viewBox="0 0 22 10" aria-hidden="true"><line x1="0" x2="22" y1="5" y2="5" style="stroke:${color(index)}" stroke-width="3" stroke-dasharray="${solid ? "" : dash(index) ?? ""}"/></svg>`;
      item.append(name);
      list.append(item);
    }
    return list;
  }

  function lines(chart, width) {
    const points = chart.series.flatMap(({ name, points }) => points.map(([x, y, low, high]) => ({ name, x, y, low, high })));
    const domain = d3.extent(points, point => point.x);
    const many = d3.max(chart.series, series => series.points.length) > 40;
    const whole = chart.whole && domain[1] - domain[0] <= 12;
    const steps = whole ? d3.range(Math.ceil(domain[0]), Math.floor(domain[1]) + 1) : undefined;
    const words = point => [
      chart.series.length > 1 ? point.name : null,
      `${chart.x} ${short(point.x)}`,
      `${chart.y || "value"} ${short(point.y)}`,
      point.low != null ? `95 %: ${short(point.low)} to ${short(point.high)}` : null,
    ].filter(line => line).join("\n");
    const flat = domain[0] === domain[1];
    const plot = Plot.plot({
      width, height: Math.round(Math.min(290, Math.max(200, width * 0.55))), marginTop: 26, marginLeft: 52, marginRight: 14, marginBottom: 34, style,
      x: { label: chart.x, labelAnchor: "right", ticks: steps ?? Math.max(3, Math.floor(width / 90)), tickFormat: whole ? "d" : ticks, domain: flat ? [domain[0] - 1, domain[0] + 1] : domain, inset: many ? 0 : 8 },
      y: { label: chart.y || null, grid: true, ticks: 5, tickFormat: ticks, nice: true, ...(chart.range ? { domain: chart.range } : {}) },
      color: { domain: chart.colors, range: chart.colors.map((_, index) => color(index)) },
      marks: [
        chart.rule == null ? null : Plot.ruleY([chart.rule], { stroke: "currentColor", strokeOpacity: 0.5, strokeDasharray: "3 3" }),
        Plot.ruleX(chart.breaks, { x: step => step + 0.5, stroke: "currentColor", strokeOpacity: 0.35, strokeDasharray: "3 3" }),
        Plot.areaY(points.filter(point => point.low != null), { x: "x", y1: "low", y2: "high", fill: "name", fillOpacity: chart.series.length > 3 ? 0.07 : 0.14, z: "name" }),
        Plot.ruleX(points.filter(point => point.low != null && flat), { x: "x", y1: "low", y2: "high", stroke: "name" }),
        ...chart.series.map(({ name }) => Plot.lineY(points.filter(point => point.name === name), { x: "x", y: "y", stroke: "name", strokeWidth: many ? 1.3 : 2, strokeDasharray: dash(chart.colors.indexOf(name)) })),
        many ? null : Plot.dot(points, { x: "x", y: "y", fill: "name", r: 3 }),
        tip(points, Plot.pointer({ x: "x", y: "y", title: words })),
      ],
    });
    return [legend(chart.series.map(series => series.name), chart.colors), plot];
  }

  const forms = [d3.symbolCircle, d3.symbolSquare, d3.symbolTriangle, d3.symbolDiamond, d3.symbolStar, d3.symbolCross, d3.symbolWye, d3.symbolTimes];

  function dots(chart, width) {
    const points = chart.dots.map(({ color, shape, point: [x, y, low, high] }) => ({ color, shape, x, y, low, high }));
    const list = legend(chart.colors, chart.colors, true);
    const shapes = document.createElement("ul");
    shapes.className = "legend";
    for (const [index, name] of chart.shapes.entries()) {
      const item = document.createElement("li");
      item.innerHTML = `<svg viewBox="-11 -6 22 12" aria-hidden="true"><path d="${d3.symbol(forms[index % forms.length], 50)()}" fill="currentColor"/></svg>`;
      item.append(name);
      shapes.append(item);
    }
    const words = point => [point.color, point.shape, `${chart.x} ${short(point.x)}`, `${chart.y} ${short(point.y)}`, point.low != null ? `95 %: ${short(point.low)} to ${short(point.high)}` : null].filter(line => line).join("\n");
    return [list, chart.shapes.length > 1 ? shapes : null, Plot.plot({
      width, height: Math.round(Math.min(380, Math.max(240, width * 0.6))), marginTop: 26, marginLeft: 52, marginRight: 14, marginBottom: 34, style,
      x: { label: chart.x, labelAnchor: "right", grid: true, ticks: Math.max(3, Math.floor(width / 90)), tickFormat: ticks, inset: 10 },
      y: { label: chart.y, grid: true, ticks: 5, tickFormat: ticks, nice: true },
      color: { domain: chart.colors, range: chart.colors.map((_, index) => color(index)) },
      symbol: { domain: chart.shapes, range: chart.shapes.map((_, index) => forms[index % forms.length]) },
      marks: [
        Plot.ruleX(points.filter(point => point.low != null), { x: "x", y1: "low", y2: "high", stroke: "color", strokeOpacity: 0.6 }),
        Plot.dot(points, { x: "x", y: "y", fill: "color", symbol: "shape", r: 4.5 }),
        tip(points, Plot.pointer({ x: "x", y: "y", title: words })),
      ],
    })];
  }

  function histograms(chart, width) {
    const bins = chart.panels.flatMap(({ name, bins }) => bins.map(([from, to, count]) => ({ name, from, to, count })));
    const means = chart.panels.filter(panel => panel.mean != null);
    const named = chart.panels.some(panel => panel.name);
    const rows = Math.max(1, chart.panels.length);
    return [Plot.plot({
      width, height: named ? 64 + rows * 72 : 200, marginLeft: 52, marginRight: 14, marginBottom: 34, style,
      x: { label: chart.x, labelAnchor: "right", ticks: Math.max(3, Math.floor(width / 90)), tickFormat: ticks },
      y: { label: named ? null : chart.y, ticks: named ? 2 : 5, tickFormat: ticks, grid: true },
      fy: { label: null, domain: chart.panels.map(panel => panel.name), padding: 0.28, axis: null },
      marks: [
        Plot.rectY(bins, { fy: "name", x1: "from", x2: "to", y: "count", fill: "var(--c0)", fillOpacity: 0.75, inset: 0.5, tip: false }),
        Plot.ruleX(means, { fy: "name", x: "mean", stroke: "var(--c1)", strokeWidth: 2 }),
        Plot.ruleY([0], { stroke: "currentColor", strokeOpacity: 0.5 }),
        named ? Plot.text(chart.panels, { fy: "name", text: "name", frameAnchor: "top-left", lineAnchor: "bottom", dy: -3, fill: "currentColor", fontWeight: 600 }) : null,
        tip(bins, Plot.pointerX({ fy: "name", x: bin => (bin.from + bin.to) / 2, y: "count", title: bin => `${bin.name ? `${bin.name}\n` : ""}${short(bin.from)} to ${short(bin.to)}: ${bin.count}` })),
      ],
    })];
  }

  function arrows(chart, width) {
    const colors = [...new Set(chart.arrows.map(arrow => arrow.color))];
    const scale = { domain: colors, range: colors.map((_, index) => color(index)) };
    return [legend(colors, colors, true), Plot.plot({
      width, height: 56 + chart.arrows.length * 24, marginLeft: Math.min(130, width * 0.35), marginRight: 16, marginBottom: 34, style,
      x: { label: chart.x, labelAnchor: "right", grid: true, ticks: Math.max(3, Math.floor(width / 110)), tickFormat: ticks, nice: true, inset: 6 },
      y: { label: null, domain: chart.arrows.map(arrow => arrow.name) },
      color: scale,
      marks: [
        Plot.link(chart.arrows, { x1: "before", x2: "after", y1: "name", y2: "name", stroke: "color", strokeWidth: 2 }),
        Plot.dot(chart.arrows, { x: "before", y: "name", stroke: "color", fill: "var(--paper)", r: 4 }),
        Plot.dot(chart.arrows, { x: "after", y: "name", fill: "color", r: 4.5 }),
        tip(chart.arrows, Plot.pointerY({ x: "after", y: "name", title: arrow => `${arrow.name}\n${short(arrow.before)} to ${short(arrow.after)}\n${arrow.detail}` })),
      ],
    })];
  }

  function bars(chart, width) {
    const names = [...new Set(chart.bars.map(bar => bar.bar))];
    return [legend(chart.colors, chart.colors, true), Plot.plot({
      width, height: 50 + names.length * 28, marginLeft: 50, marginRight: 16, marginBottom: 34, style,
      x: { label: chart.x, labelAnchor: "right", grid: true, ticks: Math.max(3, Math.floor(width / 110)), tickFormat: ticks },
      y: { label: null, domain: names, padding: 0.2 },
      color: { domain: chart.colors, range: chart.colors.map((_, index) => color(index)) },
      marks: [
        Plot.barX(chart.bars, Plot.stackX({ x: "value", y: "bar", fill: "piece", order: chart.colors, inset: 0.5 })),
        tip(chart.bars, Plot.pointer(Plot.stackX({ x: "value", y: "bar", z: "piece", order: chart.colors, title: bar => `${bar.bar}: ${bar.piece}\n${short(bar.value)} s` }))),
      ],
    })];
  }

  function graph(chart, width) {
    const layout = new dagre.graphlib.Graph().setDefaultEdgeLabel(() => ({}));
    const sideways = width > 700;
    layout.setGraph({ rankdir: sideways ? "LR" : "TB", nodesep: 14, ranksep: sideways ? 34 : 26, marginx: 4, marginy: 4 });
    const size = node => Math.max(92, 14 + 7.4 * Math.max(node.name.length, node.operator.length * 0.86, node.detail.length * 0.8));
    for (const node of chart.nodes) layout.setNode(node.name, { width: size(node), height: node.detail ? 50 : 36 });
    const forward = chart.edges.filter(edge => !edge.last && edge.from !== edge.to);
    for (const edge of forward) layout.setEdge(edge.from, edge.to);
    dagre.layout(layout);
    const { width: across, height: down } = layout.graph();
    const svg = d3.create("svg").attr("class", "graph").style("font", "12px system-ui, sans-serif");
    const curve = d3.line(point => point.x, point => point.y).curve(d3.curveBasis);
    const bottom = down;
    let back = 0;
    for (const edge of chart.edges) {
      if (edge.from === edge.to && edge.last) continue;
      const [from, to] = [layout.node(edge.from), layout.node(edge.to)];
      let path, last, angle;
      if (edge.last) {
        // Around the others: below them from left to right, beside them from top to bottom.
        const way = (sideways ? bottom : across) + 12 + 9 * back++;
        const [a, b] = sideways ? [[from.x + 8, from.y + from.height / 2], [to.x - 8, to.y + to.height / 2]] : [[from.x + from.width / 2, from.y + 6], [to.x + to.width / 2, to.y - 6]];
        const r = 8;
        path = sideways
          ? `M${a}V${way - r}q0,${r} ${-r},${r}H${b[0] + r}q${-r},0 ${-r},${-r}V${b[1]}`
          : `M${a}H${way - r}q${r},0 ${r},${-r}V${b[1] + r}q0,${-r} ${-r},${-r}H${b[0]}`;
        [last, angle] = [{ x: b[0], y: b[1] }, sideways ? -90 : 180];
      } else {
        const points = layout.edge(edge.from, edge.to).points;
        const before = points.at(-2);
        [path, last] = [curve(points), points.at(-1)];
        angle = (Math.atan2(last.y - before.y, last.x - before.x) * 180) / Math.PI;
      }
      svg.append("path").attr("d", path).attr("fill", "none").style("stroke", edge.last ? "var(--c1)" : "var(--dim)")
        .attr("stroke-opacity", 0.65).attr("stroke-dasharray", edge.last ? "4 4" : null);
      svg.append("path").attr("d", "M-7,-3.5L0,0L-7,3.5Z").attr("transform", `translate(${last.x},${last.y})rotate(${angle})`)
        .style("fill", edge.last ? "var(--c1)" : "var(--dim)");
    }
    // Room for the ways back.
    const [wide, high] = [across + (sideways ? 0 : 12 + 9 * back), down + (sideways ? 12 + 9 * back : 0)];
    const scale = sideways ? Math.min(1, Math.max(0.72, width / wide)) : 1;
    svg.attr("width", wide * scale).attr("height", high * scale).attr("viewBox", `0 0 ${wide} ${high}`).style("min-width", `${wide * scale}px`);
    for (const node of chart.nodes) {
      const place = layout.node(node.name);
      const box = svg.append("g").attr("transform", `translate(${place.x - place.width / 2},${place.y - place.height / 2})`);
      const border = { input: "var(--line)", done: "var(--c2)", partial: "var(--c4)", absent: "var(--dim)" }[node.state];
      box.append("rect").attr("width", place.width).attr("height", place.height).attr("rx", 6).style("fill", "var(--card)")
        .style("stroke", border).attr("stroke-width", node.state === "input" ? 1 : 1.6).attr("stroke-dasharray", node.state === "absent" ? "3 3" : null);
      const text = (words, y, weight, fill, size) => box.append("text").attr("x", place.width / 2).attr("y", y).attr("text-anchor", "middle")
        .attr("font-weight", weight).attr("font-size", size).style("fill", fill).text(words);
      text(node.name, 15, 600, "var(--ink)", 12.5);
      text(node.operator, 29, 400, "var(--dim)", 11);
      if (node.detail) text(node.detail, 43, 400, "var(--dim)", 11);
      box.append("title").text(`${node.name}: ${node.operator}\n${node.state}${node.detail ? `\n${node.detail}` : ""}`);
    }
    return [svg.node()];
  }

  const draw = { lines, dots, histograms, arrows, bars, graph };
  const figures = [];
  function all() {
    for (const figure of figures) {
      const width = Math.floor(figure.place.clientWidth);
      if (!width || width === figure.width) continue;
      figure.width = width;
      figure.place.replaceChildren(...draw[figure.chart.marks](figure.chart, width).filter(part => part));
      // The picture has one name; its groups are no parts that anybody can reach.
      for (const group of figure.place.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
    }
    document.body.dataset.drawn = String(figures.filter(figure => figure.width).length);
  }
  // The charts of a page, in place of earlier ones: pairs of an element and its chart.
  globalThis.drawCharts = pairs => {
    figures.splice(0, figures.length, ...pairs.map(([place, chart]) => ({ place, chart, width: 0 })));
    all();
  };
  globalThis.drawCharts([...document.querySelectorAll("figure")].map(figure => [figure.querySelector(".chart"), JSON.parse(figure.querySelector("script").textContent)]));
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(all, 120); });
  // What is folded is printed too.
  addEventListener("beforeprint", () => document.querySelectorAll(".pair details").forEach(details => { details.open = true; }));
})();
