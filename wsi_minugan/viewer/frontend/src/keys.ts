/** Keys of the page: one letter for each action, so that the keyboard alone suffices. */

export interface Key {
  keys: string[];
  words: string;
  act: (event: KeyboardEvent) => void;
}

const PRINTED: Record<string, string> = {
  ArrowLeft: "←",
  ArrowRight: "→",
  ArrowUp: "↑",
  ArrowDown: "↓",
  " ": "Space",
};

/** Listens for keys; letters typed into a field, and those with Ctrl, stay the browser's. */
export function listen(keys: Key[], singleLetters: () => boolean): void {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const target = event.target as Element;
    if (target.matches("input:not([type=checkbox]), select, textarea")) return;
    const key = keys.find((k) => k.keys.includes(named(event)));
    if (!key) return;
    // Space and Enter press the button that has the focus.
    if ((event.key === " " || event.key === "Enter") && target.matches("button, input, summary")) return;
    const letter = event.key.length === 1 && !event.ctrlKey;
    if (letter && !singleLetters() && !event.altKey) return;
    event.preventDefault();
    key.act(event);
  });
}

/** Returns a key's name: "a", "Shift+u", "Ctrl+z", "ArrowLeft". */
function named(event: KeyboardEvent): string {
  const letter = /^[a-z]$/i.test(event.key);
  const key = letter ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) return `Ctrl+${event.shiftKey ? "Shift+" : ""}${key}`;
  return letter && event.shiftKey ? `Shift+${key}` : key;
}

export function printed(key: string): string {
  const parts = key.split("+").filter(Boolean);
  if (parts.length === 0) return key;
  const last = parts[parts.length - 1] ?? key;
  const name = PRINTED[last] ?? (/^[a-z]$/.test(last) ? last.toUpperCase() : last);
  return [...parts.slice(0, -1), name].join(" + ");
}
