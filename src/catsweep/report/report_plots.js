// Optuna's own plots: plotly.js is unpacked when somebody opens them.
(() => {
  const section = document.querySelector("details.optuna");
  if (!section) return;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  async function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  function draw(place) {
    const { data, layout } = JSON.parse(place.previousElementSibling.textContent);
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
    for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key)) Object.assign(layout[key], axis);
    layout.font = { color: colour("--soft"), size: 12, family: "system-ui, sans-serif" };
    layout.hoverlabel = { bgcolor: colour("--card"), font: { color: colour("--ink") } };
    const done = window.Plotly.newPlot(place, data, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
    const trial = ({ points: [point] }) => Number.isInteger(point.customdata) && point;
    place.on("plotly_click", (event) => {
      const point = trial(event);
      if (point) window.showTrial(point.customdata, event.event.clientX, event.event.clientY, true);
    });
    place.on("plotly_hover", (event) => {
      const point = trial(event);
      if (point && event.event.pointerType !== "touch") window.showTrial(point.customdata, event.event.clientX, event.event.clientY);
    });
    place.on("plotly_unhover", () => window.hideTrial());
    return done;
  }

  section.addEventListener("toggle", async () => {
    if (!section.open || section.dataset.drawn) return;
    section.dataset.drawn = "no";
    try {
      await unpack();
      await Promise.all([...section.querySelectorAll(".plotly-place")].map(draw));
      section.dataset.drawn = "yes";
    } catch (error) {
      section.querySelector(".trouble").hidden = false;
    }
  });
})();
