/** What the server sends; all places are level-0 pixels of the slide. */

export type Verdict = "accepted" | "rejected";

export interface Mitosis {
  id: string;
  x: number;
  y: number;
  score: number;
  /** Outlines: x, y, x, y, … of each part. */
  rings: number[][];
}

export interface Added {
  id: string;
  x: number;
  y: number;
}

export interface DraftJson {
  verdicts: Record<string, Verdict>;
  added: Added[];
}

export interface Count {
  mitoses: number;
  mitoses_per_mm2: number | null;
  hotspot: {
    mitoses: number;
    mitoses_per_mm2: number;
    area_mm2: number;
    center_x_px: number | null;
    center_y_px: number | null;
    /** Of a rectangle half its diagonal. */
    radius_px: number;
    shape: "circle" | "rectangle";
    width_px: number | null;
    height_px: number | null;
  };
  scores: { nottingham: number | null; tupac16: number | null; nottingham_field_diameter_mm: number };
  warnings: string[];
  /** Only where the run's count.json has them. */
  interval?: { low: number; high: number; level: number } | null;
  fields?: Fields | null;
}

export interface Fields {
  diameter_mm: number;
  centers_px: [number, number][];
  counts: number[];
  total: number;
}

export interface Standing {
  count: Count;
  settled: boolean;
  least: number;
  most: number;
  queue: string[];
  pivotal: number;
}

export interface Slide {
  slide_id: string;
  width_px: number;
  height_px: number;
  mpp: number;
  /** Why the slide's pixels are not to be had; empty where they are. */
  no_pixels: string;
  tile_px: number;
  max_level: number;
  nuclei: number;
  nuclei_tile_px: number;
  masks: string[];
  mask_width_px: number;
  mask_height_px: number;
  mask_scale: number;
  mask_levels: number;
  mitoses: Mitosis[];
  reviewer: string;
  others: number;
  revision: number;
  saved: string;
  draft: DraftJson;
  standing: Standing;
  warnings: string[];
}

export interface SlideEntry {
  slide_id: string;
  problem: string;
}
