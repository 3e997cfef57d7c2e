/** Where the screen looks: from level-0 pixels to CSS pixels of the viewer's element. */

export interface View {
  /** CSS pixels per level-0 pixel. */
  scale: number;
  /** Level-0 place of the element's top-left corner. */
  left: number;
  top: number;
  /** Size of the element in CSS pixels. */
  width: number;
  height: number;
}

export function toScreen(view: View, x: number, y: number): [number, number] {
  return [(x - view.left) * view.scale, (y - view.top) * view.scale];
}

export function isSeen(view: View, x: number, y: number, margin: number): boolean {
  const [sx, sy] = toScreen(view, x, y);
  return sx > -margin && sy > -margin && sx < view.width + margin && sy < view.height + margin;
}

/** Makes a canvas as fine as the screen, where it is not yet; returns device pixels per CSS pixel. */
export function fit(canvas: HTMLCanvasElement, view: View): number {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(view.width * ratio), Math.round(view.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return ratio;
}
