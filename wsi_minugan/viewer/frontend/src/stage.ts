/** The slide on the screen: OpenSeadragon below, nuclei and mitoses above, moved together. */

import OpenSeadragon from "openseadragon";
import type { Slide } from "./types";
import type { View } from "./view";

const PAN_SHARE = 0.15;
const ZOOM_STEP = 1.4;

export class Stage {
  private readonly osd: OpenSeadragon.Viewer;
  private readonly masks = new Map<string, OpenSeadragon.TiledImage>();

  constructor(
    element: HTMLElement,
    private readonly slide: Slide,
    private readonly index: number,
    private readonly redraw: () => void,
  ) {
    keepInlineStyleAway();
    this.osd = new OpenSeadragon.Viewer({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: !slide.no_pixels,
      navigatorId: "navigator",
      animationTime: 0.4,
      maxZoomPixelRatio: 4,
      visibilityRatio: 0.3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      tileSources: this.pixels(),
    });
    this.osd.canvas.setAttribute("role", "application");
    this.osd.canvas.setAttribute(
      "aria-label",
      "Slide. Arrows move, plus and minus zoom, question mark lists all keys.",
    );
    for (const name of ["update-viewport", "open", "resize"] as const) {
      this.osd.addHandler(name, this.redraw);
    }
    // The page has keys of its own, and OpenSeadragon's would turn and mirror the slide.
    this.osd.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = true;
    });
  }

  onClick(act: (x: number, y: number, shift: boolean) => void): void {
    this.osd.addHandler("canvas-click", (event) => {
      if (!event.quick) return;
      const view = this.view();
      if (!view) return;
      const { x, y } = event.position;
      act(
        view.left + x / view.scale,
        view.top + y / view.scale,
        (event.originalEvent as MouseEvent).shiftKey,
      );
    });
  }

  /** Returns where the screen looks, or null while there is no slide yet. */
  view(): View | null {
    const bounds = this.osd.viewport?.getBounds(true);
    if (!bounds || this.osd.world.getItemCount() === 0) return null;
    const { x: width, y: height } = this.osd.viewport.getContainerSize();
    const px = this.slide.width_px;
    return { scale: width / (bounds.width * px), left: bounds.x * px, top: bounds.y * px, width, height };
  }

  centre(): [number, number] {
    const view = this.view();
    if (!view) return [0, 0];
    return [view.left + view.width / 2 / view.scale, view.top + view.height / 2 / view.scale];
  }

  /** Moves so that a place is in the middle, as near as `scale` CSS pixels per level-0 pixel where that is nearer. */
  goTo(x: number, y: number, scale: number): void {
    const view = this.view();
    if (!view) return;
    const px = this.slide.width_px;
    const wanted = Math.max(scale, Math.min(view.scale, 2));
    const width = view.width / wanted / px;
    const height = view.height / wanted / px;
    this.osd.viewport.fitBounds(
      new OpenSeadragon.Rect(x / px - width / 2, y / px - height / 2, width, height),
      true,
    );
    this.redraw();
  }

  fitCircle(x: number, y: number, radius: number): void {
    const px = this.slide.width_px;
    const side = (2.2 * radius) / px;
    this.osd.viewport.fitBounds(
      new OpenSeadragon.Rect(x / px - side / 2, y / px - side / 2, side, side),
      true,
    );
  }

  fitAll(): void {
    this.osd.viewport.goHome(true);
  }

  pan(dx: number, dy: number): void {
    const bounds = this.osd.viewport.getBounds();
    const step = PAN_SHARE * Math.min(bounds.width, bounds.height);
    this.osd.viewport.panBy(new OpenSeadragon.Point(dx * step, dy * step));
    this.osd.viewport.applyConstraints();
  }

  zoom(inwards: boolean): void {
    this.osd.viewport.zoomBy(inwards ? ZOOM_STEP : 1 / ZOOM_STEP);
    this.osd.viewport.applyConstraints();
  }

  /** Shows or hides a mask of the run over the slide. */
  async showMask(name: string, shown: boolean): Promise<void> {
    const there = this.masks.get(name);
    if (there) there.setOpacity(shown ? 0.6 : 0);
    else if (shown) {
      this.masks.set(name, await this.addMask(name));
    }
  }

  private addMask(name: string): Promise<OpenSeadragon.TiledImage> {
    return new Promise((resolve, reject) => {
      this.osd.addTiledImage({
        ...this.mask(name),
        success: (event) => resolve((event as unknown as { item: OpenSeadragon.TiledImage }).item),
        error: () => reject(new Error(`The mask ${name} cannot be shown.`)),
      });
    });
  }

  private mask(name: string) {
    const { slide, index } = this;
    return {
      opacity: 0.6,
      width: (slide.mask_width_px * slide.mask_scale) / slide.width_px,
      tileSource: {
        width: slide.mask_width_px,
        height: slide.mask_height_px,
        tileSize: slide.tile_px,
        minLevel: 0,
        maxLevel: slide.mask_levels - 1,
        getTileUrl: (level: number, x: number, y: number) => `s/${index}/mask/${name}/${level}/${x}_${y}`,
      },
    };
  }

  private pixels(): object {
    const { slide, index } = this;
    return {
      width: slide.width_px,
      height: slide.height_px,
      tileSize: slide.tile_px,
      minLevel: 0,
      maxLevel: slide.max_level,
      getTileUrl: (level: number, x: number, y: number) => `s/${index}/tile/${level}/${x}_${y}`,
    };
  }
}

/** OpenSeadragon adds a style sheet for telephones where it finds none of its own; the page's security policy allows no such. */
function keepInlineStyleAway(): void {
  const inert = document.createElementNS("urn:wsi-minugan", "style");
  inert.setAttribute("data-openseadragon-mobile-css", "true");
  document.head.append(inert);
}
