/** Opens the page: the list of slides, the slide of the address, the keys. */

import * as api from "./api";
import { Desk } from "./desk";
import { type Key, listen } from "./keys";
import { element, showKeys, showProblem } from "./panel";

declare global {
  interface Window {
    /** The slide under review, for tests and for the curious. */
    desk?: Desk;
  }
}

async function open(): Promise<void> {
  const slides = await api.listSlides();
  const wanted = Number(
    new URLSearchParams(location.search).get("slide") ?? slides.findIndex((s) => !s.problem),
  );
  const choice = element<HTMLSelectElement>("slides");
  choice.replaceChildren(
    ...slides.map((slide, k) => {
      const option = new Option(
        slide.problem ? `${slide.slide_id} (cannot be shown)` : slide.slide_id,
        String(k),
      );
      option.disabled = slide.problem !== "";
      option.selected = k === wanted;
      return option;
    }),
  );
  choice.addEventListener("change", () => location.assign(`?slide=${choice.value}`));
  const entry = slides[wanted];
  if (!entry || entry.problem)
    throw new Error(entry?.problem ?? slides[0]?.problem ?? "There is no such slide.");
  document.title = `${entry.slide_id}: review`;
  const desk = new Desk(await api.readSlide(wanted), wanted);
  window.desk = desk;
  start(desk);
}

function start(desk: Desk): void {
  const help = element<HTMLDialogElement>("help");
  const keys: Key[] = [
    ...desk.keys(),
    { keys: ["g"], words: "To the gallery; arrows move in it", act: () => element("gallery").focus() },
    { keys: ["?"], words: "These keys", act: () => help.showModal() },
  ];
  showKeys(keys);
  listen(keys, () => element<HTMLInputElement>("single").checked);
  for (const button of document.querySelectorAll<HTMLButtonElement>("button[data-key]")) {
    button.addEventListener("click", () => {
      keys.find((k) => k.keys.includes(button.dataset.key ?? ""))?.act(new KeyboardEvent("keydown"));
    });
  }
  window.addEventListener("beforeunload", (event) => {
    if (desk.dirty) event.preventDefault();
  });
}

open().catch((error: Error) => showProblem(error.message));
