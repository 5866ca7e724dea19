"use strict";
// All that is to be read is in the page already: this shows tips, hides curves, and opens what is folded for paper.
document.documentElement.classList.add("script");

const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);

for (const point of document.querySelectorAll(".point")) { // the browser's own title would cover the tip
  const title = point.querySelector("title");
  point.dataset.words = title.textContent;
  point.setAttribute("role", "img");
  point.setAttribute("aria-label", title.textContent);
  title.remove();
}

function showTip(point) {
  tip.textContent = point.dataset.words;
  tip.hidden = false;
  const mark = point.querySelector(".mark").getBoundingClientRect(), own = tip.getBoundingClientRect();
  const middle = mark.left + mark.width / 2 - own.width / 2;
  const left = Math.max(8, Math.min(middle, document.documentElement.clientWidth - own.width - 8));
  const above = mark.top - own.height - 8;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(above < 4 ? mark.bottom + 8 : above) + scrollY}px`;
}

const hideTip = () => { tip.hidden = true; };

for (const series of document.querySelectorAll(".series")) {
  const points = [...series.querySelectorAll(".point")];
  series.addEventListener("pointerover", event => {
    const point = event.target.closest(".point");
    if (point) showTip(point);
  });
  series.addEventListener("pointerout", hideTip);
  series.addEventListener("focusin", event => {
    const point = event.target.closest(".point");
    if (point) showTip(point);
  });
  series.addEventListener("focusout", hideTip);
  series.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (event.key === "Escape") hideTip();
    if (!step || points.length === 0) return;
    const now = points.indexOf(document.activeElement);
    const next = now < 0 ? (step > 0 ? 0 : points.length - 1) : Math.max(0, Math.min(points.length - 1, now + step));
    points[next].focus();
    event.preventDefault();
  });
}

for (const box of document.querySelectorAll(".legend input")) {
  const figure = box.closest("figure");
  const show = () => {
    for (const series of figure.querySelectorAll(".series")) {
      if (series.dataset.curve === box.dataset.shows) series.toggleAttribute("hidden", !box.checked);
    }
  };
  box.addEventListener("change", show);
  show(); // a browser may remember boxes over a reload
}

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
