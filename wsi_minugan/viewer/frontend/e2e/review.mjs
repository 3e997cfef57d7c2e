// A whole review by keyboard: node review.mjs ADDRESS PICTURES. Prints what it saw as JSON; the pytest beside judges it.
import { axe, centre, counted, number, open, ready, saved, still } from "./common.mjs";

const [address, pictures] = process.argv.slice(2);
const { browser, page, complaints, requests } = await open(address);
const seen = {};
await ready(page);
seen.address = page.url();
seen.before = await number(page, "mitoses");
seen.axe = await axe(page);
await page.screenshot({ path: `${pictures}/whole-slide.jpg`, quality: 80 });

// Reject the first that could change the score.
await page.keyboard.press("n");
seen.rejected = await page.locator("#gallery [aria-selected=true]").getAttribute("data-id");
await page.waitForTimeout(1500);
await page.screenshot({ path: `${pictures}/next.jpg`, quality: 80 });
await page.keyboard.press("r");
await counted(page);
seen.afterReject = await number(page, "mitoses");

// Undo, redo.
await page.keyboard.press("u");
await counted(page);
seen.afterUndo = await number(page, "mitoses");
await page.keyboard.press("Shift+U");
await counted(page);
seen.afterRedo = await number(page, "mitoses");

// Accept the next one; the page goes on by itself.
await page.keyboard.press("n");
seen.accepted = await page.locator("#gallery [aria-selected=true]").getAttribute("data-id");
await page.keyboard.press("a");
await counted(page);
seen.wentOn = (await page.locator("#gallery [aria-selected=true]").getAttribute("data-id")) !== seen.accepted;

// Mark a missed one at the cross, after moving by keyboard.
const before = await centre(page);
for (const key of ["ArrowLeft", "ArrowUp"]) await page.keyboard.press(key);
await page.waitForFunction((from) => String(window.desk.stage.centre()) !== from, before);
await still(page);
await page.keyboard.press("m");
await counted(page);
seen.afterMark = await number(page, "mitoses");
seen.added = await page.locator("#gallery [data-state=added]").count();

await saved(page);
seen.saved = await page.locator("#saved").textContent();
await page.waitForTimeout(1500);
await page.screenshot({ path: `${pictures}/decided.jpg`, quality: 80 });

// All layers, by their numbers, and the help.
for (const key of ["3", "5", "6", "7"]) await page.keyboard.press(key);
await page.keyboard.press("f");
await page.waitForTimeout(2500);
await page.screenshot({ path: `${pictures}/layers.jpg`, quality: 80 });
await page.keyboard.press("?");
seen.axeHelp = await axe(page);
await page.screenshot({ path: `${pictures}/keys.jpg`, quality: 80 });
await page.keyboard.press("Escape");

// The gallery by keyboard.
await page.keyboard.press("g");
await page.keyboard.press("Home");
await page.keyboard.press("ArrowRight");
seen.galleryFocus = await page.evaluate(() => document.activeElement.id);
seen.galleryMoved = await page.evaluate(
  () => document.querySelectorAll("#gallery [role=option]")[1].getAttribute("aria-selected") === "true",
);

// What was saved comes back.
await page.reload();
await ready(page);
seen.afterReload = await number(page, "mitoses");
seen.states = await page.evaluate(() =>
  Object.fromEntries(
    [...document.querySelectorAll("#gallery [role=option]")].map((c) => [c.dataset.id, c.dataset.state]),
  ),
);
seen.complaints = complaints;
seen.foreign = requests.filter((r) => new URL(r).origin !== new URL(address).origin);
console.log(JSON.stringify(seen));
await browser.close();
