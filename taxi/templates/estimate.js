"use strict";
const at = (id) => document.getElementById(id);
const ends = ["from", "to"];

function paint() {
  for (const shape of at("map").querySelectorAll("[data-zone]")) {
    for (const end of ends) shape.classList.toggle(end, shape.dataset.zone === at(end).value);
  }
}

const CAVEATS = {
  "pickup-far-from-training": "The pickup lies more than a year from the months that the model has learnt from.",
  "distance-beyond-training": "No trip that the model has learnt from was so long.",
  "distance-not-used": "This model does not use a planned distance.",
  "p90-at-cut-off": "The model has learnt from trips of at most 60 minutes, so the true end may lie beyond.",
};
const CUT_OFF = 60;

function minutes(value) {
  return value.toFixed(0) >= CUT_OFF ? `${CUT_OFF} or more` : value.toFixed(0);
}

function bar(low, middle, high) {
  const most = Math.max(high * 1.15, 10), x = (value) => (10 + 380 * value / most).toFixed(1);
  return `<svg viewBox="0 0 400 56" role="img" aria-label="from ${minutes(low)} to ${minutes(high)} minutes">
    <line x1="10" y1="20" x2="390" y2="20" stroke="currentColor" stroke-width="1"/>
    <line x1="${x(low)}" y1="20" x2="${x(high)}" y2="20" stroke="currentColor" stroke-width="9"/>
    <circle cx="${x(middle)}" cy="20" r="9" class="middle"/>
    <text x="${x(low)}" y="48" text-anchor="middle" fill="currentColor" font-size="15">${low.toFixed(0)}</text>
    <text x="${x(high)}" y="48" text-anchor="middle" fill="currentColor" font-size="15">${high.toFixed(0)}${high.toFixed(0) >= CUT_OFF ? "+" : ""} min</text></svg>`;
}

function say(state, html) {
  at("answer").dataset.state = state;
  at("answer").innerHTML = html;
}

function explain(text) {
  say("failed", "<p></p>");
  at("answer").firstChild.textContent = text;
}

async function estimate(event) {
  if (event) event.preventDefault();
  const trip = { PULocationID: Number(at("from").value), DOLocationID: Number(at("to").value), pickup_datetime: at("at").value };
  if (at("miles").value) trip.planned_distance_miles = Number(at("miles").value);
  history.replaceState(null, "", `#from=${at("from").value}&to=${at("to").value}&at=${at("at").value}`);
  const headers = { "Content-Type": "application/json" };
  if (at("key")) headers["X-API-Key"] = at("key").value;
  try {
    const response = await fetch("predict", { method: "POST", headers, body: JSON.stringify(trip) });
    const got = await response.json();
    if (!response.ok) return explain(got.error.message);
    say("done", `<strong>${minutes(got.median_minutes)} minutes</strong>
      <span>Eight trips in ten take ${minutes(got.p10_minutes)} to ${minutes(got.p90_minutes)} minutes; the mean is ${got.mean_minutes.toFixed(1)}.</span>
      ${bar(got.p10_minutes, got.median_minutes, got.p90_minutes)}
      <small></small><ul>${got.caveats.map((caveat) => `<li>${CAVEATS[caveat] || ""}</li>`).join("")}</ul>`);
    at("answer").querySelector("small").textContent =
      `${got.service} model, version ${got.version}, ${got.arm}, learnt from trips until ${got.trained_to}`;
  } catch (error) {
    explain("The service does not answer.");
  }
}

function newYorkNow() {
  return new Date().toLocaleString("sv-SE", { timeZone: "America/New_York" }).slice(0, 16).replace(" ", "T");
}

at("at").value = newYorkNow();
for (const end of ends) at(end).addEventListener("change", paint);
at("map").addEventListener("click", (event) => {
  const shape = event.target.closest("[data-zone]");
  if (!shape) return;
  const end = at("from").value && !at("to").value ? "to" : "from";
  if (end === "from") at("to").value = "";
  at(end).value = shape.dataset.zone;
  paint();
  if (end === "to" && at("ask").checkValidity()) estimate();
});
at("ask").addEventListener("submit", estimate);
const wanted = new URLSearchParams(location.hash.slice(1));
for (const id of ["from", "to", "at"]) if (wanted.get(id)) at(id).value = wanted.get(id);
paint();
if (at("from").value && at("to").value && at("ask").checkValidity()) estimate();
