/** Requests with pictures, and those without on models that could have them, as users see them. */
import type { BenchContext, Group } from "../context.js";
import type { Figure } from "../figure.js";
import { batching } from "./images/batching.js";
import { bytes } from "./images/bytes.js";
import { firstToken } from "./images/first-token.js";
import { gap } from "./images/gap.js";
import { textOnly } from "./images/text-only.js";
import { tiles } from "./images/tiles.js";

/** One after another, so that no more clusters run than are compared. */
const PARTS: Group[] = [tiles, batching, firstToken, bytes, textOnly, gap];

export async function images(context: BenchContext): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const part of PARTS) {
    const start = performance.now();
    figures.push(...(await part(context)));
    context.log(`${part.name}: ${((performance.now() - start) / 1e3).toFixed(0)} s`);
  }
  return figures;
}
