/** Nuclei on the GPU (or its software stand-in): points when far, outlines when near; binary from the server, no copy in between. */

import { binary } from "./api";
import { fit, type View } from "./view";

/** CSS pixels per level-0 pixel from which outlines are drawn; a nucleus is then about 10 pixels wide. */
const NEAR = 0.3;
const MAX_TILES = 48;

const VERTEX = `#version 300 es
in vec2 place;
uniform vec2 corner;
uniform vec2 scale;
uniform float size;
void main() {
  gl_Position = vec4((place - corner) * scale + vec2(-1.0, 1.0), 0.0, 1.0);
  gl_PointSize = size;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
uniform vec4 colour;
out vec4 result;
void main() { result = colour; }`;

interface Tile {
  buffer: WebGLBuffer;
  vertices: number;
  left: number;
  top: number;
  used: number;
}

export class NucleiLayer {
  shown = true;
  /** How many points or outlines' corners the last frame drew; for tests and for the curious. */
  drawn = 0;
  private readonly gl: WebGL2RenderingContext | null;
  private readonly program: WebGLProgram | null = null;
  private points: WebGLBuffer | null = null;
  private count = 0;
  private readonly tiles = new Map<string, Tile | null>();
  private frame = 0;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly slide: number,
    private readonly tilePx: number,
    private readonly changed: () => void,
    private readonly failed: (error: Error) => void,
  ) {
    this.gl = canvas.getContext("webgl2", { antialias: false, alpha: true, premultipliedAlpha: true });
    if (this.gl) this.program = link(this.gl);
  }

  get works(): boolean {
    return this.gl !== null;
  }

  async load(): Promise<void> {
    const gl = this.gl;
    if (!gl) return;
    const data = await binary(`s/${this.slide}/nuclei/points`);
    this.points = upload(gl, data);
    this.count = data.byteLength / 8;
    this.changed();
  }

  draw(view: View): void {
    const { gl, program } = this;
    if (!gl || !program) return;
    const ratio = fit(this.canvas, view);
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    this.drawn = 0;
    if (!this.shown || !this.points) return;
    gl.useProgram(program);
    gl.uniform2f(
      gl.getUniformLocation(program, "scale"),
      (2 * view.scale) / view.width,
      (-2 * view.scale) / view.height,
    );
    gl.uniform4f(gl.getUniformLocation(program, "colour"), 0, 0.22, 0.42, 0.85);
    if (view.scale < NEAR) this.drawPoints(view, ratio);
    else this.drawOutlines(view);
  }

  private drawPoints(view: View, ratio: number): void {
    const { gl, program } = this;
    if (!gl || !program) return;
    const size = Math.min(4, Math.max(1, 14 * view.scale)) * ratio;
    gl.uniform1f(gl.getUniformLocation(program, "size"), size);
    this.drawBuffer(this.points, view.left, view.top, gl.POINTS, this.count);
  }

  private drawOutlines(view: View): void {
    const { gl, tilePx } = this;
    if (!gl) return;
    this.frame += 1;
    const first = (v: number) => Math.max(0, Math.floor(v / tilePx));
    const right = first(view.left + view.width / view.scale);
    const bottom = first(view.top + view.height / view.scale);
    for (let row = first(view.top); row <= bottom; row++) {
      for (let column = first(view.left); column <= right; column++) {
        const tile = this.tile(column, row);
        if (!tile) continue;
        tile.used = this.frame;
        this.drawBuffer(tile.buffer, view.left - tile.left, view.top - tile.top, gl.LINES, tile.vertices);
      }
    }
    this.forget();
  }

  private drawBuffer(
    buffer: WebGLBuffer | null,
    left: number,
    top: number,
    mode: GLenum,
    count: number,
  ): void {
    const { gl, program } = this;
    if (!gl || !program || !buffer) return;
    gl.uniform2f(gl.getUniformLocation(program, "corner"), left, top);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    const place = gl.getAttribLocation(program, "place");
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 2, gl.FLOAT, false, 0, 0);
    gl.drawArrays(mode, 0, count);
    this.drawn += count;
  }

  /** Returns a tile of outlines; null while it is on its way, or where it is empty. */
  private tile(column: number, row: number): Tile | null {
    const name = `${column}_${row}`;
    const known = this.tiles.get(name);
    if (known !== undefined) return known;
    this.tiles.set(name, null);
    binary(`s/${this.slide}/nuclei/outlines/${name}`)
      .then((data) => {
        if (!this.gl || data.byteLength === 0) return;
        const buffer = upload(this.gl, data);
        const [left, top] = [column * this.tilePx, row * this.tilePx];
        this.tiles.set(name, { buffer, vertices: data.byteLength / 8, left, top, used: this.frame });
        this.changed();
      })
      .catch((error: Error) => {
        this.tiles.delete(name);
        this.failed(error);
      });
    return null;
  }

  private forget(): void {
    if (this.tiles.size <= MAX_TILES) return;
    for (const [name, tile] of this.tiles) {
      if (tile && tile.used < this.frame) {
        this.gl?.deleteBuffer(tile.buffer);
        this.tiles.delete(name);
      }
    }
  }
}

function upload(gl: WebGL2RenderingContext, data: ArrayBuffer): WebGLBuffer {
  const buffer = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  return buffer;
}

function link(gl: WebGL2RenderingContext): WebGLProgram | null {
  const program = gl.createProgram();
  for (const [kind, source] of [
    [gl.VERTEX_SHADER, VERTEX],
    [gl.FRAGMENT_SHADER, FRAGMENT],
  ] as const) {
    const shader = gl.createShader(kind);
    if (!shader) return null;
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  return gl.getProgramParameter(program, gl.LINK_STATUS) ? program : null;
}
