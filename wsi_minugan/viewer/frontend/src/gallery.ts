/** All mitoses as small pictures, by score; a list box that the keyboard moves in. */

import { COLOURS, type State } from "./overlay";

export interface Item {
  id: string;
  x: number;
  y: number;
  score: number;
  added: boolean;
}

const SIGNS: Record<State, string> = { open: "", accepted: "✓", rejected: "✕", added: "+" };
const WORDS: Record<State, string> = {
  open: "not looked at",
  accepted: "accepted",
  rejected: "rejected",
  added: "added",
};

export class Gallery {
  private items: Item[] = [];
  private readonly cells = new Map<string, HTMLElement>();
  private selected: string | null = null;

  constructor(
    private readonly list: HTMLElement,
    private readonly picture: (item: Item) => string | null,
    private readonly choose: (id: string) => void,
  ) {
    list.addEventListener("keydown", (event) => this.onKey(event));
    list.addEventListener("click", (event) => {
      const cell = (event.target as Element).closest<HTMLElement>("[role=option]");
      if (cell?.dataset.id) this.choose(cell.dataset.id);
    });
  }

  /** Shows these items in this order; pictures that are there already stay. */
  show(items: Item[], state: (id: string) => State): void {
    this.items = items;
    const wanted = new Set(items.map((i) => i.id));
    for (const [id, cell] of this.cells) {
      if (!wanted.has(id)) {
        cell.remove();
        this.cells.delete(id);
      }
    }
    items.forEach((item, k) => {
      const cell = this.cells.get(item.id) ?? this.cell(item);
      if (this.list.children[k] !== cell) this.list.insertBefore(cell, this.list.children[k] ?? null);
      mark(cell, item, k, items.length, state(item.id));
    });
  }

  select(id: string | null): void {
    if (this.selected) this.cells.get(this.selected)?.setAttribute("aria-selected", "false");
    this.selected = id;
    const cell = id === null ? undefined : this.cells.get(id);
    if (!cell) {
      this.list.removeAttribute("aria-activedescendant");
      return;
    }
    cell.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", cell.id);
    cell.scrollIntoView({ block: "nearest" });
  }

  /** Returns the item some steps after the selected one, in the order shown. */
  neighbour(step: number): string | null {
    const at = this.items.findIndex((i) => i.id === this.selected);
    const k =
      at < 0
        ? step > 0
          ? 0
          : this.items.length - 1
        : Math.min(this.items.length - 1, Math.max(0, at + step));
    return this.items[k]?.id ?? null;
  }

  private cell(item: Item): HTMLElement {
    const cell = document.createElement("div");
    cell.id = `m-${item.id}`;
    cell.dataset.id = item.id;
    cell.className = "cell";
    cell.setAttribute("role", "option");
    cell.setAttribute("aria-selected", "false");
    const source = this.picture(item);
    if (source) {
      const image = document.createElement("img");
      image.loading = "lazy";
      image.alt = "";
      image.width = image.height = 96;
      image.src = source;
      cell.append(image);
    }
    const sign = document.createElement("span");
    sign.className = "sign";
    sign.setAttribute("aria-hidden", "true");
    const words = document.createElement("span");
    words.className = "score";
    cell.append(sign, words);
    this.cells.set(item.id, cell);
    return cell;
  }

  private onKey(event: KeyboardEvent): void {
    const columns = Math.max(
      1,
      Math.floor(this.list.clientWidth / (this.list.firstElementChild?.clientWidth || 100)),
    );
    const steps: Record<string, number> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -columns,
      ArrowDown: columns,
      Home: -this.items.length,
      End: this.items.length,
    };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const id = this.neighbour(step);
    if (id) this.choose(id);
  }
}

function mark(cell: HTMLElement, item: Item, k: number, all: number, state: State): void {
  const told = item.added ? "added by you" : `score ${item.score.toFixed(2)}`;
  cell.setAttribute("aria-label", `Mitosis ${k + 1} of ${all}, ${told}, ${WORDS[state]}`);
  cell.dataset.state = state;
  cell.style.borderColor = COLOURS[state];
  const [sign, words] = [cell.querySelector(".sign"), cell.querySelector(".score")];
  if (sign) sign.textContent = SIGNS[state];
  if (words) words.textContent = item.added ? "added" : item.score.toFixed(2);
}
