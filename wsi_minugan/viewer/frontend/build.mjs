// Builds the viewer into ../static: one script, one style sheet, one page. The same sources give the same bytes.
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? path.join(here, "..", "static");
await mkdir(out, { recursive: true });
const openseadragon = path.join(here, "node_modules", "openseadragon");
const licence = await readFile(path.join(openseadragon, "LICENSE.txt"), "utf8");
await esbuild.build({
  entryPoints: [path.join(here, "src", "main.ts"), path.join(here, "src", "viewer.css")],
  entryNames: "[name]",
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  absWorkingDir: here,
});
for (const name of ["index.html", "icon.svg"])
  await copyFile(path.join(here, "src", name), path.join(out, name));
await writeFile(
  path.join(out, "LICENSES.txt"),
  `The script main.js holds OpenSeadragon (https://openseadragon.github.io):\n\n${licence}`,
);
