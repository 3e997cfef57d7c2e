/** One slide under review: what is on the page, and what each key does to it. */

import * as api from "./api";
import { Gallery, type Item } from "./gallery";
import type { Key } from "./keys";
import { NucleiLayer } from "./nuclei";
import { Overlay, type Scene, type State } from "./overlay";
import { element, showLayers, showProblem, showScale, showStanding } from "./panel";
import { Review } from "./review";
import { Stage } from "./stage";
import type { Slide, Standing } from "./types";

/** CSS pixels per um at which an object is looked at: as large as with a 40x objective. */
const LOOK_SCALE = 4;
const AUTOSAVE_MS = 1500;
/** A mark nearer to an object than this (um) is the same mitosis. */
const SAME_UM = 5;
const STEPS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

export class Desk {
  readonly nuclei: NucleiLayer;
  private readonly stage: Stage;
  private readonly overlay = new Overlay(element<HTMLCanvasElement>("marks"));
  private readonly gallery: Gallery;
  private readonly review: Review;
  private readonly shown = { mitoses: true, hotspot: true, heat: false };
  private standing: Standing;
  private revision: number;
  private selected: string | null = null;
  private waiting = false;
  private asked = 0;
  private version = 0;
  private savedVersion = 0;
  private saving: Promise<void> | null = null;
  private timer = 0;

  constructor(
    private readonly slide: Slide,
    private readonly index: number,
  ) {
    this.review = new Review(slide.draft);
    this.standing = slide.standing;
    this.revision = slide.revision;
    this.stage = new Stage(element("slide"), slide, index, () => this.redraw());
    const fail = (error: Error) => showProblem(error.message);
    this.nuclei = new NucleiLayer(index, slide.nuclei_tile_px, () => this.redraw(), fail);
    this.gallery = new Gallery(
      element("gallery"),
      (item) => (slide.no_pixels ? null : `s/${index}/crop/${item.x.toFixed(1)}_${item.y.toFixed(1)}`),
      (id) => this.look(id),
    );
    this.stage.onClick((x, y, shift) => (shift ? this.markAt(x, y) : this.lookNear(x, y)));
    element("stage").classList.toggle("bare", slide.no_pixels !== "");
    this.introduce(fail);
  }

  get dirty(): boolean {
    return this.version !== this.savedVersion;
  }

  private introduce(fail: (error: Error) => void): void {
    const { slide } = this;
    element("reviewer").textContent = slide.reviewer;
    const others = slide.others === 1 ? "one other review" : `${slide.others} other reviews`;
    element("others").textContent = slide.others ? `(${others} of this slide, kept apart)` : "";
    showProblem(slide.no_pixels);
    this.tellSaved(slide.saved ? `Saved ${time(slide.saved)}.` : "Nothing decided yet.");
    this.showLayers();
    this.refresh();
    element("order").addEventListener("change", () => this.refresh());
    if (slide.nuclei) this.nuclei.load().catch(fail);
  }

  private layers(): [string, string, boolean][] {
    const words: Record<string, string> = {
      classes: "Classes",
      mitosis_score: "Score",
      coverage: "Analysed",
    };
    return [
      ["mitoses", "Mitoses", this.shown.mitoses],
      ["hotspot", "Hot spot", this.shown.hotspot],
      ["heat", "Heat map", this.shown.heat],
      ...(this.slide.nuclei ? [["nuclei", "Nuclei", this.nuclei.shown] as [string, string, boolean]] : []),
      ...this.slide.masks.map((name): [string, string, boolean] => [name, words[name] ?? name, false]),
    ];
  }

  private showLayers(): void {
    showLayers(this.layers(), (name, on) => this.toggle(name, on));
  }

  private toggle(name: string, on: boolean): void {
    if (name === "mitoses" || name === "hotspot" || name === "heat") this.shown[name] = on;
    else if (name === "nuclei") this.nuclei.shown = on;
    else this.stage.showMask(name, on).catch((error: Error) => showProblem(error.message));
    this.redraw();
  }

  /** Returns the keys of the page; the numbers switch layers. */
  keys(): Key[] {
    return [
      { keys: ["a"], words: "Accept: it is a mitosis", act: () => this.decide("accepted") },
      {
        keys: ["r", "Delete"],
        words: "Reject: it is none; takes a mark of yours away",
        act: () => this.decide("rejected"),
      },
      {
        keys: ["m"],
        words: "Mark a missed mitosis at the cross in the middle (mouse: Shift + click)",
        act: () => this.markAt(...this.stage.centre()),
      },
      { keys: ["u", "Ctrl+z"], words: "Undo", act: () => this.changed(this.review.undo()) },
      { keys: ["Shift+u", "Ctrl+y"], words: "Redo", act: () => this.changed(this.review.redo()) },
      {
        keys: ["n", " "],
        words: "Next: an object that could change the score, while there is one",
        act: () => this.next(),
      },
      { keys: ["j", "]"], words: "Next in the gallery", act: () => this.look(this.gallery.neighbour(1)) },
      {
        keys: ["k", "["],
        words: "Previous in the gallery",
        act: () => this.look(this.gallery.neighbour(-1)),
      },
      { keys: ["h"], words: "Hot spot", act: () => this.goToHotspot() },
      { keys: ["f"], words: "Whole slide", act: () => this.stage.fitAll() },
      { keys: ["s", "Ctrl+s"], words: "Save now (it saves by itself, too)", act: () => void this.save() },
      {
        keys: Object.keys(STEPS),
        words: "Move",
        act: (event) => this.stage.pan(...(STEPS[event.key] ?? [0, 0])),
      },
      { keys: ["+", "="], words: "Nearer", act: () => this.stage.zoom(true) },
      { keys: ["-", "_"], words: "Farther", act: () => this.stage.zoom(false) },
      {
        keys: this.layers().map((_, k) => String(k + 1)),
        words: "Show or hide a layer",
        act: (event) =>
          document.querySelectorAll<HTMLInputElement>("#layers input")[Number(event.key) - 1]?.click(),
      },
    ];
  }

  private state(id: string): State {
    return this.review.mark(id) ? "added" : (this.review.verdict(id) ?? "open");
  }

  private place(id: string): { x: number; y: number } | undefined {
    return this.review.mark(id) ?? this.slide.mitoses.find((m) => m.id === id);
  }

  private look(id: string | null): void {
    const place = id === null ? undefined : this.place(id);
    if (id === null || !place) return;
    this.select(id);
    this.stage.goTo(place.x, place.y, LOOK_SCALE * this.slide.mpp);
    this.tell(document.getElementById(`m-${id}`)?.getAttribute("aria-label") ?? "");
  }

  private select(id: string | null): void {
    this.selected = id;
    this.gallery.select(id);
    this.redraw();
  }

  private lookNear(x: number, y: number): void {
    const view = this.stage.view();
    if (view) this.select(this.nearest(x, y, 20 / view.scale));
  }

  /** Returns the object nearest to a place, within a reach in level-0 pixels. */
  private nearest(x: number, y: number, reach: number): string | null {
    const near = [...this.slide.mitoses, ...this.review.added]
      .map((m) => ({ id: m.id, away: Math.hypot(m.x - x, m.y - y) }))
      .filter((m) => m.away < reach)
      .sort((a, b) => a.away - b.away)[0];
    return near?.id ?? null;
  }

  private decide(verdict: "accepted" | "rejected"): void {
    const id = this.selected;
    if (id === null) {
      this.tell("Nothing is selected. N goes to the next object.");
      return;
    }
    if (this.review.mark(id)) {
      if (verdict === "rejected") this.review.remove(id);
    } else this.review.decide(id, this.review.verdict(id) === verdict ? null : verdict);
    const onwards = element<HTMLInputElement>("onwards").checked && this.review.verdict(id) !== null;
    this.changed(id, onwards);
  }

  private markAt(x: number, y: number): void {
    if (x < 0 || y < 0 || x > this.slide.width_px || y > this.slide.height_px) {
      this.tell("The cross is not on the slide.");
      return;
    }
    const there = this.nearest(x, y, SAME_UM / this.slide.mpp);
    if (there) {
      this.select(there);
      this.tell("There is an object already; it is selected.");
      return;
    }
    const item = { id: crypto.randomUUID(), x: Math.round(100 * x) / 100, y: Math.round(100 * y) / 100 };
    this.review.add(item);
    this.changed(item.id);
  }

  /** Takes up a change: the page at once, the count as soon as the server has it, the file a moment later. */
  private changed(id: string | null, onwards = false): void {
    if (id === null) {
      this.tell("There is nothing to undo or redo.");
      return;
    }
    this.version += 1;
    this.refresh();
    if (this.place(id)) this.look(id);
    else this.select(null);
    this.tellSaved("Not saved yet.");
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.save(), AUTOSAVE_MS);
    void this.recount(onwards);
  }

  private async recount(onwards: boolean): Promise<void> {
    const asked = ++this.asked;
    this.waiting = true;
    try {
      const standing = await api.standing(this.index, this.review.toJson());
      // A newer decision has its own answer on the way.
      if (asked !== this.asked) return;
      this.standing = standing;
      this.refresh();
      this.tell(this.inWords());
      if (onwards) this.next();
    } catch (error) {
      showProblem((error as Error).message);
    } finally {
      if (asked === this.asked) this.waiting = false;
    }
  }

  private inWords(): string {
    const { count } = this.standing;
    return `${count.mitoses} mitoses, ${count.hotspot.mitoses} in the hot spot, Nottingham score ${count.scores.nottingham ?? "not defined"}.`;
  }

  private next(): void {
    const queue = this.standing.queue.filter((id) => this.review.verdict(id) === null);
    const id = queue[0] === this.selected && queue.length > 1 ? queue[1] : queue[0];
    if (id) this.look(id);
    else this.tell("All objects have been looked at.");
  }

  private goToHotspot(): void {
    const spot = this.standing.count.hotspot;
    if (spot.center_x_px === null || spot.center_y_px === null) this.tell("There is no hot spot.");
    else this.stage.fitCircle(spot.center_x_px, spot.center_y_px, spot.radius_px);
  }

  /** Saves, one save after the other; what was decided during a save is saved by the next. */
  async save(): Promise<void> {
    window.clearTimeout(this.timer);
    await this.saving;
    if (!this.dirty) {
      this.tellSaved(this.revision ? "Saved." : "Nothing decided yet.");
      return;
    }
    this.saving = this.saveOnce();
    await this.saving;
    this.saving = null;
  }

  private async saveOnce(): Promise<void> {
    const version = this.version;
    this.tellSaved("Saving …");
    try {
      const done = await api.save(this.index, this.review.toJson(), this.revision);
      this.revision = done.revision;
      this.savedVersion = version;
      this.tellSaved(this.dirty ? "Not saved yet." : `Saved ${time(done.saved)}.`);
    } catch (error) {
      this.tellSaved("Not saved.");
      showProblem((error as Error).message);
    }
  }

  private refresh(): void {
    showStanding(this.slide, this.standing);
    const sign = element<HTMLSelectElement>("order").value === "up" ? 1 : -1;
    const items: Item[] = [
      ...this.review.added.map((a) => ({ ...a, score: 1, added: true })),
      ...this.slide.mitoses
        .map((m) => ({ id: m.id, x: m.x, y: m.y, score: m.score, added: false }))
        .sort((a, b) => sign * (a.score - b.score) || a.y - b.y || a.x - b.x),
    ];
    this.gallery.show(items, (id) => this.state(id));
    this.gallery.select(this.selected);
    for (const [key, can] of [["u", this.review.canUndo]] as const) {
      document.querySelector(`button[data-key="${key}"]`)?.toggleAttribute("disabled", !can);
    }
    this.redraw();
  }

  private redraw(): void {
    const view = this.stage?.view();
    if (!view) return;
    this.overlay.draw(view, this.scene(), this.nuclei);
    showScale(this.slide.mpp, view.scale);
  }

  private scene(): Scene {
    return {
      mitoses: this.slide.mitoses,
      added: this.review.added,
      state: (id) => this.state(id),
      selected: this.selected,
      standing: this.standing,
      shown: this.shown,
      mpp: this.slide.mpp,
      width_px: this.slide.width_px,
      height_px: this.slide.height_px,
    };
  }

  private tell(text: string): void {
    element("told").textContent = text;
  }

  private tellSaved(text: string): void {
    element("saved").textContent = text;
  }

  /** Whether the page shows all that was decided; for tests. */
  get settled(): boolean {
    return !this.waiting && this.saving === null;
  }
}

function time(iso: string): string {
  return new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}
