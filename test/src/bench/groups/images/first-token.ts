/** Milliseconds from sending a picture to the first token about it, of D, X and H. */
import { openModel } from "@tessera/model";
import type { TesseraClient } from "@tessera/client";
import type { BenchContext } from "../../context.js";
import { figure, type Figure } from "../../figure.js";
import { tinyVariant, VARIANTS, type Variant } from "../../models.js";
import { noisePicture, pictureRequest, type Patches } from "../../pictures.js";
import { startServing, type Serving } from "../../serve.js";
import { median } from "../../statistics.js";

const PATCHES: readonly Patches[] = [1, 3, 7];
/** Of each variant and size, in a round. */
const PICTURES = 8;

interface Case {
  variant: Variant;
  tileSize: number;
  serving: Serving;
  times: Map<Patches, number[]>;
}

async function firstTokenMs(client: TesseraClient, data: Uint8Array): Promise<number> {
  const start = performance.now();
  let first: number | undefined;
  for await (const { kind } of client.generate({ ...pictureRequest(data), returnTokenIds: true }))
    if (kind.case === "delta") first ??= performance.now();
  if (first === undefined) throw new Error("a stream ended without a token");
  return first - start;
}

/** Picture by picture the variants take turns; `warm`: nothing is kept. */
async function round(cases: Case[], warm: boolean): Promise<void> {
  for (const patches of PATCHES)
    for (let i = 0; i < PICTURES; i++)
      for (const { serving, tileSize, times } of cases) {
        const ms = await firstTokenMs(serving.client, await noisePicture(patches, tileSize));
        if (!warm) times.get(patches)?.push(ms);
      }
}

export async function firstToken({ rounds, log }: BenchContext): Promise<Figure[]> {
  const cases: Case[] = [];
  try {
    for (const variant of VARIANTS) {
      const dir = tinyVariant(variant);
      const { config } = await openModel(dir);
      const times = new Map<Patches, number[]>(PATCHES.map((patches) => [patches, []]));
      const serving = await startServing(dir, 1);
      cases.push({ variant, tileSize: config.tile.size, serving, times });
    }
    for (let i = 0; i <= rounds; i++) await round(cases, i === 0);
    return cases.flatMap(({ variant, times }) => {
      const ms = (patches: Patches) => median(times.get(patches) ?? []);
      log(
        `ttft.${variant}: ${PATCHES.map((n) => `${n} patches ${ms(n).toFixed(1)}`).join(", ")} ms`,
      );
      return PATCHES.map((patches) =>
        figure({
          name: `images.ttft.${variant}.${patches}p`,
          value: ms(patches),
          unit: "ms",
          measure:
            `tiny, 1 worker, one picture of ${patches} ${patches === 1 ? "tile" : "tiles"} at a time, ` +
            "from sending to the first token",
        }),
      );
    });
  } finally {
    await Promise.all(cases.map(({ serving }) => serving.stop()));
  }
}
