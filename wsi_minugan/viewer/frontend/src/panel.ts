/** The panel beside the slide: counts, what is left to do, layers, keys. */

import { type Key, printed } from "./keys";
import type { Slide, Standing } from "./types";

export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no element ${id}.`);
  return found as T;
}

export function showStanding(slide: Slide, standing: Standing): void {
  const { count } = standing;
  const { interval, fields } = count;
  const spot = count.hotspot;
  const rows: [string, string, string][] = [
    ["mitoses", "Mitoses", String(count.mitoses)],
    ["hotspot", `Hot spot, ${spot.area_mm2.toFixed(2)} mm²`, String(spot.mitoses)],
    ["density", "Hot spot, per mm²", spot.mitoses_per_mm2.toFixed(1)],
  ];
  if (interval) {
    const name = `${Math.round(100 * interval.level)} % interval`;
    rows.push(["interval", name, `${interval.low} to ${interval.high}`]);
  }
  if (fields) rows.push(["fields", `${fields.counts.length} fields`, String(fields.total)]);
  rows.push(
    ["nottingham", "Nottingham score", String(count.scores.nottingham ?? "not defined")],
    ["tupac16", "TUPAC16 score", String(count.scores.tupac16 ?? "not given")],
  );
  element("count").replaceChildren(...rows.flatMap(([id, name, value]) => row(id, name, value)));
  element("settled").textContent = settledWords(standing);
  element("warnings").replaceChildren(...[...count.warnings, ...slide.warnings].filter(firstOf).map(item));
}

function settledWords(standing: Standing): string {
  const { least, most, queue, pivotal } = standing;
  if (queue.length === 0) return "All objects have been looked at.";
  const left = `${queue.length} not looked at.`;
  const { nottingham, tupac16 } = standing.count.scores;
  if (nottingham === null && tupac16 === null)
    return `${left} The hot spot can end with ${least} to ${most}.`;
  if (standing.settled) return `${left} None of them can change a score any more; a missed one still could.`;
  return `${left} The hot spot can end with ${least} to ${most}; ${pivotal} in it could change a score (N).`;
}

function row(id: string, name: string, value: string): HTMLElement[] {
  const [term, told] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  told.textContent = value;
  told.id = `count-${id}`;
  return [term, told];
}

function item(text: string): HTMLElement {
  const made = document.createElement("li");
  made.textContent = text;
  return made;
}

function firstOf(text: string, k: number, all: string[]): boolean {
  return all.indexOf(text) === k;
}

export function showLayers(
  names: [string, string, boolean][],
  toggle: (name: string, on: boolean) => void,
): void {
  const boxes = names.map(([name, words, on], k) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = on;
    box.id = `layer-${name}`;
    box.addEventListener("change", () => toggle(name, box.checked));
    label.append(box, ` ${words} `);
    const key = document.createElement("kbd");
    key.textContent = String(k + 1);
    label.append(key);
    return label;
  });
  const fieldset = element("layers");
  fieldset.replaceChildren(fieldset.firstElementChild ?? "", ...boxes);
}

export function showKeys(keys: Key[]): void {
  element("keys").replaceChildren(
    ...keys.map((key) => {
      const line = document.createElement("tr");
      const [left, right] = [document.createElement("td"), document.createElement("td")];
      key.keys.forEach((name, k) => {
        if (k) left.append(" ");
        const printedKey = document.createElement("kbd");
        printedKey.textContent = printed(name);
        left.append(printedKey);
      });
      right.textContent = key.words;
      line.append(left, right);
      return line;
    }),
  );
}

/** Shows a bar of a round length: 1, 2 or 5 times a power of ten. */
export function showScale(mpp: number, scale: number): void {
  const most = 130 * (mpp / scale);
  const power = 10 ** Math.floor(Math.log10(most));
  const um = [5, 2, 1].map((k) => k * power).find((v) => v <= most) ?? power;
  const bar = element("scale");
  bar.style.width = `${(um / mpp) * scale}px`;
  bar.textContent = um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
}

export function showProblem(text: string): void {
  const place = element("problem");
  place.textContent = text;
  place.hidden = text === "";
}
