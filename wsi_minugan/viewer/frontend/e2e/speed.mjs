// How many frames a second a pan over all nuclei has: node speed.mjs ADDRESS PICTURES. Prints JSON.
import { open, ready } from "./common.mjs";

const [address, pictures] = process.argv.slice(2);
const SECONDS = 3;
const { browser, page, complaints } = await open(address);
await ready(page);
await page.waitForFunction(() => window.desk.nuclei.drawn > 0);
const drawn = await page.evaluate(() => window.desk.nuclei.drawn);
await page.screenshot({ path: `${pictures}/nuclei.jpg`, quality: 80 });

/** Drags the slide to and fro and counts the frames in which the nuclei were drawn anew. */
async function frames() {
  await page.evaluate(() => {
    window.counts = { frames: 0, draws: 0, longest: 0, last: performance.now() };
    const { nuclei } = window.desk;
    window.plain ??= nuclei.paint.bind(nuclei);
    nuclei.paint = (...all) => {
      window.plain(...all);
      window.counts.draws += 1;
    };
    const tick = (now) => {
      const c = window.counts;
      c.frames += 1;
      c.longest = Math.max(c.longest, now - c.last);
      c.last = now;
      window.ticking = requestAnimationFrame(tick);
    };
    window.ticking = requestAnimationFrame(tick);
  });
  const start = Date.now();
  await page.mouse.move(480, 400);
  await page.mouse.down();
  for (let k = 0; Date.now() - start < 1000 * SECONDS; k++) {
    await page.mouse.move(480 + 150 * Math.sin(k / 6), 400 + 100 * Math.cos(k / 9));
  }
  await page.mouse.up();
  const seconds = (Date.now() - start) / 1000;
  const counts = await page.evaluate(() => {
    cancelAnimationFrame(window.ticking);
    return window.counts;
  });
  return { fps: counts.frames / seconds, draws: counts.draws / seconds, longest_ms: counts.longest };
}

const runs = [];
for (let k = 0; k < 5; k++) {
  runs.push(await frames());
  if (runs.at(-1).draws >= 20) break;
}
console.log(JSON.stringify({ drawn, runs, complaints }));
await browser.close();
