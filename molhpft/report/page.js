"use strict";

const figures = JSON.parse(document.getElementById("figures").textContent);
const places = figures.map((_, number) => document.getElementById(`figure-${number}`));
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const PRINTED_WIDTH = 680;

/* what depends on theme and width; figures themselves say neither */
function layoutOf(figure, printed) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name, onPaper) => (printed ? onPaper : style.getPropertyValue(name).trim());
  const text = colour("--text", "#1b2330");
  const grid = colour("--line", "#d5dae2");
  const axis = { gridcolor: grid, zeroline: false, linecolor: text, automargin: true };
  const { width, ...layout } = figure.layout;
  return {
    ...layout,
    ...(printed ? { width: PRINTED_WIDTH, autosize: false } : { autosize: true }),
    template: { layout: { xaxis: axis, yaxis: axis } },
    font: { color: text, family: "system-ui, sans-serif", size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 12, t: 12, b: 48 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    hoverlabel: { font: { family: "system-ui, sans-serif" } },
  };
}

function draw(printed) {
  return Promise.all(
    figures.map((figure, number) =>
      Plotly.react(places[number], figure.data, layoutOf(figure, printed), {
        responsive: true,
        displaylogo: false,
        displayModeBar: false,
      }),
    ),
  );
}

function valueOf(row, column) {
  const text = row.cells[column].dataset.value;
  return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
}

/* missing values come last in both directions */
function compare(a, b, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a === typeof b) return sign * (a < b ? -1 : a > b ? 1 : 0);
  return typeof a === "number" ? -1 : 1;
}

function sortBy(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  const rising = header.getAttribute("aria-sort") === "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(valueOf(a, column), valueOf(b, column), rising ? 1 : -1));
  table.tBodies[0].append(...rows);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}
draw(false);
dark.addEventListener("change", () => draw(false));
window.addEventListener("beforeprint", () => draw(true));
window.addEventListener("afterprint", () => draw(false));
