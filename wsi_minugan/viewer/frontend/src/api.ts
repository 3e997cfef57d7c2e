/** The server's answers; every failure is an Error whose text is a sentence for the user. */

import type { DraftJson, Slide, SlideEntry, Standing } from "./types";

async function answer(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new Error(
      "The viewer's program does not answer. Is it still running? Start wsi-minugan view again.",
    );
  }
  if (!response.ok) {
    const body: unknown = await response.json().catch(() => null);
    const told = body !== null && typeof body === "object" && "error" in body ? String(body.error) : "";
    throw new Error(told || `The viewer's program answered ${response.status}.`);
  }
  return response;
}

async function json<T>(path: string, init?: RequestInit): Promise<T> {
  return (await (await answer(path, init)).json()) as T;
}

function body(method: string, content: unknown): RequestInit {
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
}

export function listSlides(): Promise<SlideEntry[]> {
  return json("slides");
}

export function readSlide(slide: number): Promise<Slide> {
  return json(`s/${slide}`);
}

export function standing(slide: number, draft: DraftJson): Promise<Standing> {
  return json(`s/${slide}/standing`, body("POST", draft));
}

export function save(
  slide: number,
  draft: DraftJson,
  revision: number,
): Promise<{ revision: number; saved: string }> {
  return json(`s/${slide}/review`, body("PUT", { ...draft, revision }));
}

export async function binary(path: string): Promise<ArrayBuffer> {
  return (await answer(path)).arrayBuffer();
}
