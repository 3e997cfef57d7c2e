/** A reviewer's decisions, with undo and redo. Nothing here knows of the page or of the server. */

import type { Added, DraftJson, Verdict } from "./types";

type Action =
  | { kind: "verdict"; id: string; from: Verdict | null; to: Verdict | null }
  | { kind: "add"; item: Added }
  | { kind: "remove"; item: Added };

export class Review {
  private readonly verdicts: Map<string, Verdict>;
  private readonly marks: Map<string, Added>;
  private past: Action[] = [];
  private future: Action[] = [];

  constructor(draft: DraftJson) {
    this.verdicts = new Map(Object.entries(draft.verdicts));
    this.marks = new Map(draft.added.map((a) => [a.id, a]));
  }

  verdict(id: string): Verdict | null {
    return this.verdicts.get(id) ?? null;
  }

  get added(): Added[] {
    return [...this.marks.values()];
  }

  mark(id: string): Added | null {
    return this.marks.get(id) ?? null;
  }

  get decided(): number {
    return this.verdicts.size;
  }

  get canUndo(): boolean {
    return this.past.length > 0;
  }

  get canRedo(): boolean {
    return this.future.length > 0;
  }

  /** Decides on an object of the run, or takes the decision back (null). */
  decide(id: string, to: Verdict | null): void {
    const from = this.verdict(id);
    if (from !== to) this.act({ kind: "verdict", id, from, to });
  }

  add(item: Added): void {
    this.act({ kind: "add", item });
  }

  /** Takes a mark of the reviewer's own away again. */
  remove(id: string): void {
    const item = this.marks.get(id);
    if (item) this.act({ kind: "remove", item });
  }

  /** Undoes the last action and returns the object that it was about. */
  undo(): string | null {
    const action = this.past.pop();
    if (!action) return null;
    this.future.push(action);
    return this.apply(inverse(action));
  }

  redo(): string | null {
    const action = this.future.pop();
    if (!action) return null;
    this.past.push(action);
    return this.apply(action);
  }

  toJson(): DraftJson {
    return { verdicts: Object.fromEntries(this.verdicts), added: this.added };
  }

  private act(action: Action): void {
    this.past.push(action);
    this.future = [];
    this.apply(action);
  }

  private apply(action: Action): string {
    if (action.kind === "verdict") {
      if (action.to) this.verdicts.set(action.id, action.to);
      else this.verdicts.delete(action.id);
      return action.id;
    }
    if (action.kind === "add") this.marks.set(action.item.id, action.item);
    else this.marks.delete(action.item.id);
    return action.item.id;
  }
}

function inverse(action: Action): Action {
  if (action.kind === "verdict") return { ...action, from: action.to, to: action.from };
  return { kind: action.kind === "add" ? "remove" : "add", item: action.item };
}
