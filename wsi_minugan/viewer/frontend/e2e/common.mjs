// What the browser's tests share: Chromium, and all that its console says.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

export async function open(url, size = { width: 1280, height: 800 }) {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    // Without a graphics card, as on remote desktops: what is fast enough there is so everywhere.
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
  const context = await browser.newContext({ viewport: size });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const complaints = [];
  const requests = [];
  page.on("console", (m) => {
    if (m.type() === "error") complaints.push(m.text());
  });
  page.on("pageerror", (e) => complaints.push(String(e)));
  page.on("request", (r) => requests.push(r.url()));
  await page.goto(url);
  return { browser, page, complaints, requests };
}

/** Waits until the page shows the slide and its count. */
export async function ready(page) {
  await page.waitForFunction(() => document.querySelectorAll("#gallery [role=option]").length > 0);
  await page.waitForFunction(() => document.querySelector("#scale")?.textContent !== "");
}

/** Waits until all that was decided has been counted. */
export async function counted(page) {
  await page.waitForFunction(() => window.desk.settled);
}

export function centre(page) {
  return page.evaluate(() => String(window.desk.stage.centre()));
}

/** Waits until the slide has stopped moving; on a slow machine that takes longer than its animation. */
export async function still(page) {
  for (let before = ""; ; ) {
    const now = await centre(page);
    if (now === before) return;
    before = now;
    await page.waitForTimeout(700);
  }
}

export async function saved(page) {
  await page.keyboard.press("s");
  await page.waitForFunction(() => document.querySelector("#saved").textContent.startsWith("Saved"));
}

export function number(page, id) {
  return page.locator(`#count-${id}`).textContent().then(Number);
}

/** Returns axe-core's findings that are serious or worse. */
export async function axe(page) {
  const source = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  await page.evaluate(source);
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations
    .filter((v) => v.impact === "serious" || v.impact === "critical")
    .map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target.join(" ")).join(", ")}`);
}
