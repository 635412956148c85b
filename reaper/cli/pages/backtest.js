"use strict";
const ink = getComputedStyle(document.body).color;
for (const chart of document.querySelectorAll(".chart")) {
  const data = JSON.parse(chart.querySelector("script").textContent);
  chart.replaceChildren();
  Plotly.newPlot(chart, data, {
    barmode: "stack", bargap: 0, height: 260, hovermode: "x unified",
    margin: {l: 44, r: 8, t: 8, b: 32}, font: {color: ink}, hoverlabel: {font: {color: "#1a1f29"}},
    paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    legend: {orientation: "h", y: 1.15}, showlegend: true,
    xaxis: {gridcolor: "rgba(128,128,128,.2)"},
    yaxis: {gridcolor: "rgba(128,128,128,.3)", rangemode: "tozero", tickformat: ",d"},
  }, {responsive: true, displaylogo: false, showLink: false});
}
