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
  /** Of pictures of 7 patches that were sent before. */
  again: Record<"imageHit" | "prefixHit", number[]>;
}

async function firstTokenMs(
  client: TesseraClient,
  data: Uint8Array,
  more: { cacheSalt?: string } = {},
): Promise<number> {
  const start = performance.now();
  let first: number | undefined;
  const request = { ...pictureRequest(data), returnTokenIds: true, ...more };
  for await (const { kind } of client.generate(request))
    if (kind.case === "delta") first ??= performance.now();
  if (first === undefined) throw new Error("a stream ended without a token");
  return first - start;
}

/** Picture by picture the variants take turns; `warm`: nothing is kept. */
async function round(cases: Case[], warm: boolean): Promise<void> {
  for (const patches of PATCHES)
    for (let i = 0; i < PICTURES; i++)
      for (const { serving, tileSize, times, again } of cases) {
        const picture = await noisePicture(patches, tileSize);
        const ms = await firstTokenMs(serving.client, picture);
        if (warm) continue;
        times.get(patches)?.push(ms);
        if (patches !== 7) continue;
        // Under another salt the tiles are known and the prompt's blocks are not.
        again.imageHit.push(await firstTokenMs(serving.client, picture, { cacheSalt: "other" }));
        again.prefixHit.push(await firstTokenMs(serving.client, picture));
      }
}

function againFigures({ variant, again }: Case): Figure[] {
  const of = (name: string, list: number[], what: string) =>
    figure({
      name: `images.ttft.${variant}.7p.${name}`,
      value: median(list),
      unit: "ms",
      measure: `a picture of 7 patches sent again, ${what}, to the first token`,
    });
  return [
    of("image_hit", again.imageHit, "its tiles known and its prompt not (another cache_salt)"),
    of("prefix_hit", again.prefixHit, "with the same prompt"),
  ];
}

export async function firstToken({ rounds, log }: BenchContext): Promise<Figure[]> {
  const cases: Case[] = [];
  try {
    for (const variant of VARIANTS) {
      const dir = tinyVariant(variant);
      const { config } = await openModel(dir);
      const times = new Map<Patches, number[]>(PATCHES.map((patches) => [patches, []]));
      const serving = await startServing(dir, 1);
      const again = { imageHit: [], prefixHit: [] };
      cases.push({ variant, tileSize: config.tile.size, serving, times, again });
    }
    for (let i = 0; i <= rounds; i++) await round(cases, i === 0);
    return cases.flatMap((one) => {
      const { variant, times } = one;
      const ms = (patches: Patches) => median(times.get(patches) ?? []);
      log(
        `ttft.${variant}: ${PATCHES.map((n) => `${n} patches ${ms(n).toFixed(1)}`).join(", ")} ms`,
      );
      const cold = PATCHES.map((patches) =>
        figure({
          name: `images.ttft.${variant}.${patches}p`,
          value: ms(patches),
          unit: "ms",
          measure:
            `tiny, 1 worker, one picture of ${patches} ${patches === 1 ? "tile" : "tiles"} at a time, ` +
            "from sending to the first token",
        }),
      );
      return [...cold, ...againFigures(one)];
    });
  } finally {
    await Promise.all(cases.map(({ serving }) => serving.stop()));
  }
}
