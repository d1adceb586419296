// Draws each figure's data with Observable Plot, at the width that there is. Texts of a run only ever become text nodes.
"use strict";
(() => {
  const color = index => `var(--c${index % 8})`;
  const dash = index => (index % 8 < 4 ? undefined : "6 3");
  const short = value => (value == null ? "" : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(2) : String(Number(value.toPrecision(4))));
  const ticks = value => (Math.abs(value) >= 1e4 ? d3.format("~s")(value) : value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(0) : d3.format("~g")(value));
  const style = { fontSize: "12px", fontFamily: "inherit", overflow: "visible" };

  function legend(names, colors) {
    if (names.length < 2) return null;
    const list = document.createElement("ul");
    list.className = "legend";
    for (const name of names) {
      const index = colors.indexOf(name);
      const item = document.createElement("li");
      item.innerHTML = `<svg viewBox="0 0 22 10" aria-hidden="true"><line x1="0" x2="22" y1="5" y2="5" style="stroke:${color(index)}" stroke-width="3" stroke-dasharray="${dash(index) ?? ""}"/></svg>`;
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
    const tip = point => [
      chart.series.length > 1 ? point.name : null,
      `${chart.x} ${short(point.x)}`,
      `${chart.y || "value"} ${short(point.y)}`,
      point.low != null ? `95 %: ${short(point.low)} to ${short(point.high)}` : null,
    ].filter(line => line).join("\n");
    const flat = domain[0] === domain[1];
    const plot = Plot.plot({
      width, height: Math.round(Math.min(280, Math.max(190, width * 0.55))), marginLeft: 46, marginRight: 14, marginBottom: 34, style,
      x: { label: chart.x, labelAnchor: "right", ticks: steps ?? Math.max(3, Math.floor(width / 90)), tickFormat: whole ? "d" : ticks, domain: flat ? [domain[0] - 1, domain[0] + 1] : domain, inset: many ? 0 : 8 },
      y: { label: chart.y, grid: true, ticks: 5, tickFormat: ticks, nice: true, ...(chart.range ? { domain: chart.range } : {}) },
      color: { domain: chart.colors, range: chart.colors.map((_, index) => color(index)) },
      marks: [
        chart.rule == null ? null : Plot.ruleY([chart.rule], { stroke: "currentColor", strokeOpacity: 0.5, strokeDasharray: "3 3" }),
        Plot.ruleX(chart.breaks, { x: step => step + 0.5, stroke: "currentColor", strokeOpacity: 0.35, strokeDasharray: "3 3" }),
        Plot.areaY(points.filter(point => point.low != null), { x: "x", y1: "low", y2: "high", fill: "name", fillOpacity: 0.14, z: "name" }),
        Plot.ruleX(points.filter(point => point.low != null && flat), { x: "x", y1: "low", y2: "high", stroke: "name" }),
        ...chart.series.map(({ name }) => Plot.lineY(points.filter(point => point.name === name), { x: "x", y: "y", stroke: "name", strokeWidth: many ? 1.3 : 2, strokeDasharray: dash(chart.colors.indexOf(name)) })),
        many ? null : Plot.dot(points, { x: "x", y: "y", fill: "name", r: 3 }),
        Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: tip })),
      ],
    });
    return [legend(chart.series.map(series => series.name), chart.colors), plot];
  }

  function histograms(chart, width) {
    const bins = chart.panels.flatMap(({ name, bins }) => bins.map(([from, to, count]) => ({ name, from, to, count })));
    const means = chart.panels.filter(panel => panel.mean != null);
    const named = chart.panels.some(panel => panel.name);
    const rows = Math.max(1, chart.panels.length);
    return [Plot.plot({
      width, height: named ? 60 + rows * 62 : 200, marginLeft: 46, marginRight: 14, marginBottom: 34, style,
      x: { label: chart.x, labelAnchor: "right", ticks: Math.max(3, Math.floor(width / 90)), tickFormat: ticks },
      y: { label: named ? null : chart.y, ticks: named ? 2 : 5, tickFormat: ticks, grid: true },
      fy: { label: null, domain: chart.panels.map(panel => panel.name), padding: 0.18, axis: null },
      marks: [
        Plot.rectY(bins, { fy: "name", x1: "from", x2: "to", y: "count", fill: "var(--c0)", fillOpacity: 0.75, inset: 0.5, tip: false }),
        Plot.ruleX(means, { fy: "name", x: "mean", stroke: "var(--c1)", strokeWidth: 2 }),
        Plot.ruleY([0], { stroke: "currentColor", strokeOpacity: 0.5 }),
        named ? Plot.text(chart.panels, { fy: "name", text: "name", frameAnchor: "top-right", dy: -3, fill: "currentColor", stroke: "var(--paper)", strokeWidth: 3, fontWeight: 600 }) : null,
        Plot.tip(bins, Plot.pointerX({ fy: "name", x: bin => (bin.from + bin.to) / 2, y: "count", title: bin => `${bin.name ? `${bin.name}\n` : ""}${short(bin.from)} to ${short(bin.to)}: ${bin.count}` })),
      ],
    })];
  }

  function arrows(chart, width) {
    const colors = [...new Set(chart.arrows.map(arrow => arrow.color))];
    const scale = { domain: colors, range: colors.map((_, index) => color(index)) };
    return [legend(colors, colors), Plot.plot({
      width, height: 56 + chart.arrows.length * 24, marginLeft: Math.min(130, width * 0.35), marginRight: 16, marginBottom: 34, style,
      x: { label: chart.x, labelAnchor: "right", grid: true, ticks: Math.max(3, Math.floor(width / 110)), tickFormat: ticks, nice: true, inset: 6 },
      y: { label: null, domain: chart.arrows.map(arrow => arrow.name) },
      color: scale,
      marks: [
        Plot.link(chart.arrows, { x1: "before", x2: "after", y1: "name", y2: "name", stroke: "color", strokeWidth: 2 }),
        Plot.dot(chart.arrows, { x: "before", y: "name", stroke: "color", fill: "var(--paper)", r: 4 }),
        Plot.dot(chart.arrows, { x: "after", y: "name", fill: "color", r: 4.5 }),
        Plot.tip(chart.arrows, Plot.pointerY({ x: "after", y: "name", title: arrow => `${arrow.name}\n${short(arrow.before)} to ${short(arrow.after)}\n${arrow.detail}` })),
      ],
    })];
  }

  function bars(chart, width) {
    const names = [...new Set(chart.bars.map(bar => bar.bar))];
    return [legend(chart.colors, chart.colors), Plot.plot({
      width, height: 50 + names.length * 28, marginLeft: 50, marginRight: 16, marginBottom: 34, style,
      x: { label: chart.x, labelAnchor: "right", grid: true, ticks: Math.max(3, Math.floor(width / 110)), tickFormat: ticks },
      y: { label: null, domain: names, padding: 0.2 },
      color: { domain: chart.colors, range: chart.colors.map((_, index) => color(index)) },
      marks: [
        Plot.barX(chart.bars, Plot.stackX({ x: "value", y: "bar", fill: "piece", order: chart.colors, inset: 0.5 })),
        Plot.tip(chart.bars, Plot.pointer(Plot.stackX({ x: "value", y: "bar", z: "piece", order: chart.colors, title: bar => `${bar.bar}: ${bar.piece}\n${short(bar.value)} s` }))),
      ],
    })];
  }

  function graph(chart, width) {
    const layout = new dagre.graphlib.Graph().setDefaultEdgeLabel(() => ({}));
    layout.setGraph({ rankdir: width > 700 ? "LR" : "TB", nodesep: 14, ranksep: width > 700 ? 34 : 26, marginx: 4, marginy: 4 });
    const size = node => Math.max(92, 14 + 7.4 * Math.max(node.name.length, node.operator.length * 0.86, node.detail.length * 0.8));
    for (const node of chart.nodes) layout.setNode(node.name, { width: size(node), height: node.detail ? 50 : 36 });
    const forward = chart.edges.filter(edge => !edge.last && edge.from !== edge.to);
    for (const edge of forward) layout.setEdge(edge.from, edge.to);
    dagre.layout(layout);
    const { width: across, height: down } = layout.graph();
    const scale = width > 700 ? Math.min(1, Math.max(0.72, width / across)) : 1;
    const svg = d3.create("svg").attr("class", "graph").attr("width", across * scale).attr("height", down * scale)
      .attr("viewBox", `0 0 ${across} ${down}`).style("font", "12px system-ui, sans-serif").style("min-width", `${across * scale}px`);
    const curve = d3.line(point => point.x, point => point.y).curve(d3.curveBasis);
    const end = (from, to) => {
      // Where the line from the middle of one node leaves it towards the other.
      const [dx, dy] = [to.x - from.x, to.y - from.y];
      const part = Math.min(from.width / 2 / Math.max(1e-9, Math.abs(dx)), from.height / 2 / Math.max(1e-9, Math.abs(dy)), 1);
      return { x: from.x + dx * part, y: from.y + dy * part };
    };
    for (const edge of chart.edges) {
      if (edge.from === edge.to && edge.last) continue;
      const [from, to] = [layout.node(edge.from), layout.node(edge.to)];
      const points = edge.last ? [end(from, to), end(to, from)] : layout.edge(edge.from, edge.to).points;
      svg.append("path").attr("d", curve(points)).attr("fill", "none").style("stroke", edge.last ? "var(--c1)" : "var(--dim)")
        .attr("stroke-opacity", edge.last ? 0.55 : 0.6).attr("stroke-dasharray", edge.last ? "4 4" : null);
      const [before, last] = points.slice(-2);
      const angle = (Math.atan2(last.y - before.y, last.x - before.x) * 180) / Math.PI;
      svg.append("path").attr("d", "M-7,-3.5L0,0L-7,3.5Z").attr("transform", `translate(${last.x},${last.y})rotate(${angle})`)
        .style("fill", edge.last ? "var(--c1)" : "var(--dim)");
    }
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

  const draw = { lines, histograms, arrows, bars, graph };
  const figures = [...document.querySelectorAll("figure")].map(figure => ({
    place: figure.querySelector(".chart"), chart: JSON.parse(figure.querySelector("script").textContent), width: 0,
  }));
  function all() {
    for (const figure of figures) {
      const width = Math.floor(figure.place.clientWidth);
      if (!width || width === figure.width) continue;
      figure.width = width;
      figure.place.replaceChildren(...draw[figure.chart.marks](figure.chart, width).filter(part => part));
    }
    document.body.dataset.drawn = String(figures.filter(figure => figure.width).length);
  }
  all();
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(all, 120); });
  // What is folded is printed too.
  addEventListener("beforeprint", () => document.querySelectorAll(".pair details").forEach(details => { details.open = true; }));
})();
