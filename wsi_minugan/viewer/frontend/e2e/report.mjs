// report.html in Chromium: sorts, filters, fits on paper, and says nothing on the console.
import { axe, open } from "./common.mjs";

const [address, pictures] = process.argv.slice(2);
const { browser, page, complaints, requests } = await open(address);

const names = () =>
  page.$$eval("#slides tbody tr", (rows) =>
    rows.filter((row) => !row.hidden).map((row) => row.cells[0].textContent.trim()),
  );
const sortBy = (title) => page.locator("#slides thead button", { hasText: title }).press("Enter");
const overflow = () =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

const first = await names();
await sortBy("All mitoses");
const up = await names();
await sortBy("All mitoses");
const down = await names();
const sorted = await page.locator("th[aria-sort]").getAttribute("aria-sort");
await page.locator("#filter").fill("stain");
const filtered = await names();
const cards = await page.locator("section.card:visible").count();
const shown = await page.locator("#shown").textContent();
await page.locator("#filter").fill("");
const serious = await axe(page);
const wide = await overflow();
await page.screenshot({ path: `${pictures}/report.png`, fullPage: true });
// A4 on its side, less margins of 12 mm, at 96 px an inch.
await page.setViewportSize({ width: 1032, height: 703 });
await page.emulateMedia({ media: "print" });
const printed = await overflow();
await page.pdf({ path: `${pictures}/report.pdf`, preferCSSPageSize: true });
await browser.close();

console.log(
  JSON.stringify({
    first,
    up,
    down,
    sorted,
    filtered,
    cards,
    shown,
    serious,
    wide,
    printed,
    complaints,
    requests: requests.filter((url) => !url.startsWith("data:")),
  }),
);
