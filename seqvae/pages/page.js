"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const LIGHTER = { // of the colours of conditions and series those that vanish on a dark ground
    "#332288": "#9c8cf5", "#117733": "#4fbf74", "#882255": "#dd6fa5", "#0072b2": "#4fa8e0",
    "#aa4499": "#d880c9", "#777777": "#aaaaaa", "#222222": "#e6e8eb",
  };
  const KEYS = new Set(["color", "fillcolor"]);
  let printing = false;

  const looks = () => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return {
      ink: printing ? "#000000" : read("--ink"), muted: printing ? "#444444" : read("--muted"),
      paper: printing ? "#ffffff" : read("--paper"), line: printing ? "#bbbbbb" : read("--line"),
      isDark: dark.matches && !printing,
    };
  };
  const color = (value, look) => {
    if (value === "@ink" || value === "@muted" || value === "@paper") return look[value.slice(1)];
    const lighter = look.isDark && LIGHTER[value.slice(0, 7).toLowerCase()];
    return lighter ? lighter + value.slice(7) : value;
  };
  const painted = (value, look, key) => {
    if (typeof value === "string") return KEYS.has(key) ? color(value, look) : value;
    if (Array.isArray(value)) {
      return key === "colorscale" ? value.map(([at, name]) => [at, color(name, look)])
        : value.map((item) => painted(item, look, key));
    }
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, painted(item, look, name)]));
  };
  const template = (look) => {
    const axis = {
      gridcolor: look.line, zerolinecolor: look.line, linecolor: look.line, automargin: true,
      title: { standoff: 6 }, zeroline: false,
    };
    const solid = { gridcolor: look.line, showbackground: false, zeroline: false, showticklabels: false };
    return { layout: {
      font: { color: look.ink, size: 12, family: "system-ui, sans-serif" },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      xaxis: { ...axis, automargin: false }, yaxis: axis, scene: { xaxis: solid, yaxis: solid, zaxis: solid },
      hoverlabel: { bgcolor: look.paper, font: { color: look.ink } },
    } };
  };
  const layoutOf = (chart, look) => ({
    margin: { l: 48, r: 10, t: 8, b: 40 }, hovermode: "closest", autosize: true,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
    ...painted(chart.layout, look, ""), template: template(look),
  });
  const charts = new Map();
  for (const script of document.querySelectorAll("script[data-chart]")) {
    charts.set(script.dataset.chart, JSON.parse(script.textContent));
  }
  const draw = () => {
    const look = looks();
    for (const swatch of document.querySelectorAll("[data-color]")) {
      swatch.style.background = color(swatch.dataset.color, look);
    }
    return Promise.all([...charts].map(([name, chart]) => Plotly.react(
      name, painted(chart.data, look, ""), layoutOf(chart, look),
      { responsive: true, displaylogo: false, displayModeBar: false, showSendToCloud: false },
    )));
  };
  draw().then(() => { document.documentElement.dataset.drawn = String(charts.size); });
  dark.addEventListener("change", draw);
  window.addEventListener("beforeprint", () => {
    printing = true;
    draw();
  });
  window.addEventListener("afterprint", () => { printing = false; draw(); });
})();
