/** Mitoses, hot spot, fields and heat map over the slide. States differ by shape and by colour, and the colours by brightness. */

import type { NucleiLayer } from "./nuclei";
import type { Added, Mitosis, Standing, Verdict } from "./types";
import { fit, isSeen, toScreen, type View } from "./view";

export type State = Verdict | "open" | "added";

/** Okabe and Ito's palette, told apart by colour-blind readers too. */
export const COLOURS: Record<State, string> = {
  open: "#f0e442",
  accepted: "#56b4e9",
  rejected: "#d55e00",
  added: "#cc79a7",
};
const HOTSPOT = "#ffffff";
const OUTLINES_FROM = 0.08;
const HEAT_CELLS = 160;
const HEAT_UM = 250;

export interface Scene {
  mitoses: readonly Mitosis[];
  added: readonly Added[];
  state: (id: string) => State;
  selected: string | null;
  standing: Standing;
  shown: { mitoses: boolean; hotspot: boolean; heat: boolean };
  mpp: number;
  width_px: number;
  height_px: number;
}

export class Overlay {
  private heat: { key: string; canvas: HTMLCanvasElement } | null = null;

  constructor(private readonly canvas: HTMLCanvasElement) {}

  draw(view: View, scene: Scene, nuclei: NucleiLayer): void {
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const ratio = fit(this.canvas, view);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    // One canvas for all: each one more costs a frame's time where no graphics card puts them together.
    nuclei.paint(this.canvas, context, view);
    if (scene.shown.heat) this.drawHeat(context, view, scene);
    if (scene.shown.hotspot) drawHotspot(context, view, scene);
    if (scene.shown.mitoses) drawMitoses(context, view, scene);
    drawCross(context, view);
  }

  private drawHeat(context: CanvasRenderingContext2D, view: View, scene: Scene): void {
    const counted = [...scene.mitoses.filter((m) => scene.state(m.id) !== "rejected"), ...scene.added];
    const key = counted.map((m) => m.id).join();
    if (this.heat?.key !== key) this.heat = { key, canvas: heatMap(counted, scene) };
    const [left, top] = toScreen(view, 0, 0);
    context.globalAlpha = 0.6;
    context.drawImage(this.heat.canvas, left, top, scene.width_px * view.scale, scene.height_px * view.scale);
    context.globalAlpha = 1;
  }
}

/** Returns the density of mitoses as a small picture: none is clear, the highest is bright. */
function heatMap(places: readonly { x: number; y: number }[], scene: Scene): HTMLCanvasElement {
  const cell = Math.max(scene.width_px, scene.height_px) / HEAT_CELLS;
  const columns = Math.max(1, Math.ceil(scene.width_px / cell));
  const rows = Math.max(1, Math.ceil(scene.height_px / cell));
  const sigma = HEAT_UM / scene.mpp / cell;
  const reach = Math.min(Math.ceil(3 * sigma), HEAT_CELLS);
  const density = new Float32Array(columns * rows);
  for (const place of places) {
    const [x, y] = [place.x / cell, place.y / cell];
    for (let row = Math.max(0, Math.floor(y) - reach); row < Math.min(rows, y + reach); row++) {
      for (let column = Math.max(0, Math.floor(x) - reach); column < Math.min(columns, x + reach); column++) {
        const away = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2;
        density[row * columns + column] =
          (density[row * columns + column] ?? 0) + Math.exp(-away / (2 * sigma * sigma));
      }
    }
  }
  const most = density.reduce((a, b) => Math.max(a, b), 1e-9);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const image = new ImageData(columns, rows);
  density.forEach((value, k) => {
    const t = value / most;
    image.data.set(
      [255 * Math.min(1, 2 * t), 255 * Math.max(0, 2 * t - 1), 60 * (1 - t), 255 * Math.min(1, 1.4 * t)],
      4 * k,
    );
  });
  canvas.getContext("2d")?.putImageData(image, 0, 0);
  return canvas;
}

/** Draws a path twice, dark below and coloured above, so that it is seen on every ground. */
function stroke(context: CanvasRenderingContext2D, colour: string, width: number, dash: number[] = []): void {
  context.setLineDash([]);
  context.strokeStyle = "rgba(0, 0, 0, 0.75)";
  context.lineWidth = width + 2;
  context.stroke();
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
  context.setLineDash([]);
}

function circle(context: CanvasRenderingContext2D, x: number, y: number, radius: number): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
}

function drawHotspot(context: CanvasRenderingContext2D, view: View, scene: Scene): void {
  const { hotspot: spot, fields } = scene.standing.count;
  if (spot.center_x_px !== null && spot.center_y_px !== null) {
    const [x, y] = toScreen(view, spot.center_x_px, spot.center_y_px);
    if (spot.shape === "rectangle" && spot.width_px && spot.height_px) {
      const [w, h] = [spot.width_px * view.scale, spot.height_px * view.scale];
      context.beginPath();
      context.rect(x - w / 2, y - h / 2, w, h);
    } else circle(context, x, y, spot.radius_px * view.scale);
    stroke(context, HOTSPOT, 2.5, [14, 7]);
  }
  const radius = fields ? (500 * fields.diameter_mm * view.scale) / scene.mpp : 0;
  fields?.centers_px.forEach(([x, y], k) => {
    const [sx, sy] = toScreen(view, x, y);
    circle(context, sx, sy, radius);
    stroke(context, "#e69f00", 1.5);
    if (radius > 16) {
      context.font = "600 13px system-ui, sans-serif";
      context.textAlign = "center";
      context.strokeStyle = "rgba(0, 0, 0, 0.75)";
      context.lineWidth = 3;
      const label = String(fields.counts[k] ?? "");
      context.strokeText(label, sx, sy - radius + 16);
      context.fillStyle = "#ffffff";
      context.fillText(label, sx, sy - radius + 16);
    }
  });
}

function drawMitoses(context: CanvasRenderingContext2D, view: View, scene: Scene): void {
  const near = view.scale >= OUTLINES_FROM;
  for (const mitosis of scene.mitoses) {
    if (!isSeen(view, mitosis.x, mitosis.y, 60)) continue;
    const state = scene.state(mitosis.id);
    if (near) {
      context.beginPath();
      for (const ring of mitosis.rings) traceRing(context, view, ring);
      stroke(context, COLOURS[state], 2, state === "rejected" ? [4, 4] : []);
    }
    drawSign(context, view, mitosis, state, scene.selected === mitosis.id, near);
  }
  for (const mark of scene.added) {
    if (isSeen(view, mark.x, mark.y, 60))
      drawSign(context, view, mark, "added", scene.selected === mark.id, near);
  }
}

function traceRing(context: CanvasRenderingContext2D, view: View, ring: number[]): void {
  for (let k = 0; k + 1 < ring.length; k += 2) {
    const [x, y] = toScreen(view, ring[k] ?? 0, ring[k + 1] ?? 0);
    if (k === 0) context.moveTo(x, y);
    else context.lineTo(x, y);
  }
  context.closePath();
}

/** Draws the sign of a state: a ring (open), a tick (accepted), a cross (rejected), a plus (added). */
function drawSign(
  context: CanvasRenderingContext2D,
  view: View,
  place: { x: number; y: number },
  state: State,
  selected: boolean,
  near: boolean,
): void {
  const [x, y] = toScreen(view, place.x, place.y);
  if (selected) {
    circle(context, x, y, Math.max(18, 44 * view.scale));
    stroke(context, "#ffffff", 2.5);
  }
  // Near, the sign stands beside the object, whose pixels must stay free.
  const [sx, sy] = near ? [x + Math.max(10, 26 * view.scale), y - Math.max(10, 26 * view.scale)] : [x, y];
  const r = near ? 5 : 4;
  if (state === "open") {
    if (near) return;
    circle(context, sx, sy, r);
  } else {
    context.beginPath();
    const lines: Record<Exclude<State, "open">, number[][]> = {
      accepted: [
        [-r, 0, -r / 4, r],
        [-r / 4, r, r, -r],
      ],
      rejected: [
        [-r, -r, r, r],
        [-r, r, r, -r],
      ],
      added: [
        [-r, 0, r, 0],
        [0, -r, 0, r],
      ],
    };
    for (const [ax = 0, ay = 0, bx = 0, by = 0] of lines[state]) {
      context.moveTo(sx + ax, sy + ay);
      context.lineTo(sx + bx, sy + by);
    }
  }
  stroke(context, COLOURS[state], 2.5);
  if (state === "added" && near) {
    circle(context, x, y, Math.max(8, 20 * view.scale));
    stroke(context, COLOURS.added, 2);
  }
}

/** Draws the cross in the middle, where the key M marks. */
function drawCross(context: CanvasRenderingContext2D, view: View): void {
  const [x, y] = [view.width / 2, view.height / 2];
  context.beginPath();
  for (const [dx, dy] of [
    [1, 0],
    [-1, 0],
    [0, 1],
    [0, -1],
  ] as const) {
    // The middle stays free: what is marked there must be seen.
    context.moveTo(x + 24 * dx, y + 24 * dy);
    context.lineTo(x + 34 * dx, y + 34 * dy);
  }
  stroke(context, "#ffffff", 1.5);
}
