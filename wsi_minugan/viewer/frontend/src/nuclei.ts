/**
 * Nuclei: points when far, outlines when near. Binary from the server, and painted pixel by pixel: a hundred thousand points take
 * a few milliseconds, also on machines without a graphics card, where browsers have no WebGL.
 */

import { binary } from "./api";
import { fit, type View } from "./view";

/** CSS pixels per level-0 pixel from which outlines are drawn; a nucleus is then about 10 pixels wide. */
const NEAR = 0.3;
const MAX_TILES = 48;
/** Opaque-ish dark blue as the bytes alpha, blue, green, red. */
const COLOUR = 0xd96b3800;

interface Tile {
  /** Both ends of each line: x, y, x, y. */
  lines: Float32Array;
  left: number;
  top: number;
  used: number;
}

export class NucleiLayer {
  shown = true;
  /** How many points or lines the last frame painted; for tests and for the curious. */
  drawn = 0;
  private points = new Float32Array(0);
  private readonly tiles = new Map<string, Tile | null>();
  private image: ImageData | null = null;
  private frame = 0;

  constructor(
    private readonly slide: number,
    private readonly tilePx: number,
    private readonly changed: () => void,
    private readonly failed: (error: Error) => void,
  ) {}

  async load(): Promise<void> {
    this.points = new Float32Array(await binary(`s/${this.slide}/nuclei/points`));
    this.changed();
  }

  /** Paints the nuclei and nothing else into a canvas; what was there is gone. */
  paint(canvas: HTMLCanvasElement, context: CanvasRenderingContext2D, view: View): void {
    const ratio = fit(canvas, view);
    this.drawn = 0;
    if (!this.shown || this.points.length === 0) {
      context.clearRect(0, 0, canvas.width, canvas.height);
      return;
    }
    if (this.image?.width !== canvas.width || this.image.height !== canvas.height) {
      this.image = new ImageData(canvas.width, canvas.height);
    }
    const pixels = new Uint32Array(this.image.data.buffer);
    pixels.fill(0);
    if (view.scale < NEAR) {
      const size = Math.round(Math.min(4, Math.max(1, 14 * view.scale)) * ratio);
      this.drawn = paintPoints(pixels, canvas.width, this.points, view, ratio, size);
    } else this.paintOutlines(pixels, canvas.width, view, ratio);
    context.putImageData(this.image, 0, 0);
  }

  private paintOutlines(pixels: Uint32Array, width: number, view: View, ratio: number): void {
    const { tilePx } = this;
    this.frame += 1;
    const number = (v: number) => Math.max(0, Math.floor(v / tilePx));
    const right = number(view.left + view.width / view.scale);
    const bottom = number(view.top + view.height / view.scale);
    for (let row = number(view.top); row <= bottom; row++) {
      for (let column = number(view.left); column <= right; column++) {
        const tile = this.tile(column, row);
        if (!tile) continue;
        tile.used = this.frame;
        this.drawn += paintLines(pixels, width, tile, view, ratio);
      }
    }
    this.forget();
  }

  /** Returns a tile of outlines; null while it is on its way, or where it is empty. */
  private tile(column: number, row: number): Tile | null {
    const name = `${column}_${row}`;
    const known = this.tiles.get(name);
    if (known !== undefined) return known;
    this.tiles.set(name, null);
    binary(`s/${this.slide}/nuclei/outlines/${name}`)
      .then((data) => {
        const [left, top] = [column * this.tilePx, row * this.tilePx];
        this.tiles.set(name, { lines: new Float32Array(data), left, top, used: this.frame });
        this.changed();
      })
      .catch((error: Error) => {
        this.tiles.delete(name);
        this.failed(error);
      });
    return null;
  }

  private forget(): void {
    if (this.tiles.size <= MAX_TILES) return;
    for (const [name, tile] of this.tiles) {
      if (tile && tile.used < this.frame) this.tiles.delete(name);
    }
  }
}

/** Paints a square for each point, and returns how many points are seen. */
function paintPoints(
  pixels: Uint32Array,
  width: number,
  points: Float32Array,
  view: View,
  ratio: number,
  size: number,
): number {
  const height = pixels.length / width;
  const scale = view.scale * ratio;
  const [left, top] = [view.left, view.top];
  let seen = 0;
  for (let k = 0; k + 1 < points.length; k += 2) {
    const x = Math.floor(((points[k] as number) - left) * scale - size / 2);
    const y = Math.floor(((points[k + 1] as number) - top) * scale - size / 2);
    if (x < 0 || y < 0 || x + size > width || y + size > height) continue;
    seen += 1;
    for (let at = y * width + x, row = 0; row < size; row++, at += width) {
      for (let column = 0; column < size; column++) pixels[at + column] = COLOUR;
    }
  }
  return seen;
}

/** Paints the lines of a tile, and returns how many are seen. */
function paintLines(pixels: Uint32Array, width: number, tile: Tile, view: View, ratio: number): number {
  const height = pixels.length / width;
  const scale = view.scale * ratio;
  const { lines } = tile;
  const [left, top] = [view.left - tile.left, view.top - tile.top];
  const below = ratio > 1.5 ? width : 0;
  let seen = 0;
  for (let k = 0; k + 3 < lines.length; k += 4) {
    const x = ((lines[k] as number) - left) * scale;
    const y = ((lines[k + 1] as number) - top) * scale;
    const dx = ((lines[k + 2] as number) - left) * scale - x;
    const dy = ((lines[k + 3] as number) - top) * scale - y;
    // Lines that cross the edge of the screen are left out: they are a few pixels long.
    if (x < 0 || y < 0 || x >= width || y >= height - 1) continue;
    if (x + dx < 0 || y + dy < 0 || x + dx >= width || y + dy >= height - 1) continue;
    seen += 1;
    const steps = Math.max(1, Math.ceil(Math.max(Math.abs(dx), Math.abs(dy))));
    for (let step = 0; step <= steps; step++) {
      const at = Math.floor(y + (dy * step) / steps) * width + Math.floor(x + (dx * step) / steps);
      pixels[at] = COLOUR;
      pixels[at + below] = COLOUR;
    }
  }
  return seen;
}
