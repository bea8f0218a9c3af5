/** InternViT with NVLM's dummy heads, pixel shuffle and projector, whole on one worker. */
import { PROJECTOR_EPS, type ModelConfig } from "../config.js";
import { Graph, whole } from "../graph.js";
import { headStarts, laneStarts, VISION_LANES } from "../lanes.js";
import type { BufferId, Program, TensorPiece } from "../program.js";

/** The encode program: tiles → image embeddings. */
export function visionProgram(config: ModelConfig): Program {
  return new VisionBuilder(config).build();
}

class VisionBuilder {
  private readonly graph = new Graph();
  private readonly v: ModelConfig["vision"];
  private readonly grid: number;
  private readonly places: number;

  constructor(private readonly config: ModelConfig) {
    this.v = config.vision;
    this.grid = this.v.imageSize / this.v.patchSize;
    this.places = this.grid * this.grid + 1;
  }

  build(): Program {
    const width = this.v.hiddenSize;
    const h = this.graph.buffer("vit.h", "tile", width, this.places);
    const x = this.graph.buffer("vit.x", "tile", width, this.places);
    const y = this.graph.buffer("vit.y", "tile", width, this.places);
    this.embeddings(h);
    for (let layer = 0; layer < this.v.layers; layer++) {
      this.attention(layer, { h, x, y });
      this.feedForward(layer, { h, x, y });
    }
    this.projector(h);
    return this.graph.finish();
  }

  private embeddings(h: BufferId): void {
    const g = this.graph;
    const { hiddenSize, patchSize, imageSize } = this.v;
    const name = "vision_model.embeddings";
    const pixels = 3 * patchSize * patchSize;
    const weight = g.linear("patch_embedding", [
      whole(`${name}.patch_embedding.weight`, hiddenSize, pixels),
    ]);
    const bias = g.vector("patch_embedding.bias", [
      whole(`${name}.patch_embedding.bias`, hiddenSize),
    ]);
    // Stored as [1, 1, width] and [1, places, width].
    const classEmbedding = g.vector("class_embedding", [
      whole(`${name}.class_embedding`, 1, hiddenSize),
    ]);
    const position = g.weight({
      kind: "table",
      name: "position_embedding",
      rows: this.places,
      width: hiddenSize,
      pieces: [whole(`${name}.position_embedding`, 1, this.places * hiddenSize)],
    });
    const patches = g.buffer("patches", "tile", pixels, this.places - 1);
    const x = g.buffer("patch_rows", "tile", hiddenSize, this.places - 1);
    g.op({ op: "patchify", out: patches, tileSize: imageSize, patchSize });
    g.op({ op: "linear", x: patches, out: x, weight, bias, epilogue: "none", partial: false });
    g.op({ op: "assemble_patches", x, out: h, classEmbedding, position, label: "vit.embeddings" });
  }

  private attention(layer: number, { h, x, y }: Record<"h" | "x" | "y", BufferId>): void {
    const g = this.graph;
    const { hiddenSize, heads, headDim, storedHeads, eps } = this.v;
    const name = `vision_model.encoder.layers.${layer}`;
    const [real, stored] = [heads * headDim, storedHeads * headDim];
    const groupStarts = headStarts(heads, VISION_LANES);
    const block = (index: number, from: number, count: number): TensorPiece => ({
      tensor: `${name}.attn.qkv.weight`,
      rowStart: index * stored + from,
      rowCount: count,
      colStart: 0,
      colCount: hiddenSize,
    });
    const norm = g.vector("norm1", [whole(`${name}.norm1.weight`, hiddenSize)]);
    const weight = g.linear(
      "vit.qkv",
      [0, 1, 2].map((i) => block(i, 0, real)),
      {
        zeros: [0, 1, 2].map((i) => block(i, real, stored - real)),
      },
    );
    const qkv = g.buffer("vit.qkv", "tile", 3 * real, this.places);
    const out = g.buffer("vit.attention", "tile", real, this.places);
    const label = layer === 0 ? { label: "vit.norm1" } : {};
    g.op({ op: "rms_norm", x: h, out: x, weight: norm, eps, ...label });
    g.op({ op: "linear", x, out: qkv, weight, epilogue: "none", partial: false });
    for (const [column, part] of [
      [0, "q_norm"],
      [real, "k_norm"],
    ] as const) {
      const scale = this.realPart(`${name}.attn.${part}.weight`, real, stored);
      g.op({ op: "rms_norm_heads", x: qkv, column, headDim, groupStarts, weight: scale, eps });
    }
    g.op({ op: "vision_attention", qkv, out, heads, headDim, scale: headDim ** -0.5 });
    const proj = g.linear(
      "vit.proj",
      [{ ...whole(`${name}.attn.proj.weight`, hiddenSize, stored), colCount: real }],
      {
        laneStarts: groupStarts.map((head) => head * headDim),
        zeros: [
          {
            ...whole(`${name}.attn.proj.weight`, hiddenSize, stored - real),
            colStart: real,
          },
        ],
      },
    );
    const bias = g.vector("vit.proj.bias", [whole(`${name}.attn.proj.bias`, hiddenSize)]);
    const scale = g.vector("ls1", [whole(`${name}.ls1`, hiddenSize)]);
    g.op({ op: "linear", x: out, out: y, weight: proj, epilogue: "none", partial: false });
    g.op({ op: "residual", h, y, bias, scale });
  }

  /** The real heads' part of a norm weight; the dummy heads' must be zero. */
  private realPart(tensor: string, real: number, stored: number) {
    const rest = { ...whole(tensor, stored - real), rowStart: real };
    return this.graph.vector(tensor, [whole(tensor, real)], [rest]);
  }

  private feedForward(layer: number, { h, x, y }: Record<"h" | "x" | "y", BufferId>): void {
    const g = this.graph;
    const { hiddenSize, intermediateSize: inner, eps } = this.v;
    const name = `vision_model.encoder.layers.${layer}`;
    const norm = g.vector("norm2", [whole(`${name}.norm2.weight`, hiddenSize)]);
    const fc1 = g.linear("fc1", [whole(`${name}.mlp.fc1.weight`, inner, hiddenSize)]);
    const fc1Bias = g.vector("fc1.bias", [whole(`${name}.mlp.fc1.bias`, inner)]);
    const fc2 = g.linear("fc2", [whole(`${name}.mlp.fc2.weight`, hiddenSize, inner)], {
      laneStarts: laneStarts(inner, VISION_LANES),
    });
    const bias = g.vector("fc2.bias", [whole(`${name}.mlp.fc2.bias`, hiddenSize)]);
    const scale = g.vector("ls2", [whole(`${name}.ls2`, hiddenSize)]);
    const wide = g.buffer("vit.inner", "tile", inner, this.places);
    g.op({ op: "rms_norm", x: h, out: x, weight: norm, eps });
    g.op({
      op: "linear",
      x,
      out: wide,
      weight: fc1,
      bias: fc1Bias,
      epilogue: "gelu",
      partial: false,
    });
    g.op({ op: "linear", x: wide, out: y, weight: fc2, epilogue: "none", partial: false });
    g.op({ op: "residual", h, y, bias, scale, label: `vit.layer.${layer}` });
  }

  private projector(h: BufferId): void {
    const g = this.graph;
    const width = 4 * this.v.hiddenSize;
    const rows = this.config.tile.rows;
    const shuffled = g.buffer("shuffled", "tile", width, rows);
    const normed = g.buffer("projector.norm", "tile", width, rows);
    const weight = g.vector("mlp1.0", [whole("mlp1.0.weight", width)]);
    const bias = g.vector("mlp1.0.bias", [whole("mlp1.0.bias", width)]);
    const { pixelShuffle: order } = this.config;
    const { grid } = this;
    const [eps, out] = [PROJECTOR_EPS, shuffled];
    g.op({ op: "pixel_shuffle", x: h, out, grid, order, label: "vit.pixel_shuffled" });
    const label = "projector.norm";
    g.op({ op: "layer_norm", x: shuffled, out: normed, weight, bias, eps, label });
    if (this.config.projector === "mlp") this.mlp(normed);
    else this.project(normed, "mlp1.1.weight", width);
  }

  /** Linear, GELU, linear. */
  private mlp(x: BufferId): void {
    const g = this.graph;
    const inner = this.config.decoder.intermediateSize;
    const out = g.buffer("projector.inner", "tile", inner, this.config.tile.rows);
    const weight = g.linear("mlp1.1", [whole("mlp1.1.weight", inner, 4 * this.v.hiddenSize)]);
    g.op({ op: "linear", x, out, weight, epilogue: "gelu", partial: false });
    this.project(out, "mlp1.3.weight", inner);
  }

  /** The last linear, to the decoder's width. */
  private project(x: BufferId, tensor: string, inner: number): void {
    const g = this.graph;
    const d = this.config.decoder.hiddenSize;
    const out = g.buffer("embeddings", "tile", d, this.config.tile.rows);
    const starts = laneStarts(inner, VISION_LANES);
    const weight = g.linear(tensor, [whole(tensor, d, inner)], { laneStarts: starts });
    const label = "projector.output";
    g.op({ op: "linear", x, out, weight, epilogue: "none", partial: false, label });
    g.op({ op: "store_embeddings", x: out });
  }
}
