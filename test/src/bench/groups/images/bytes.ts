/** What an image of 7 tiles keeps of the caches while its answer runs, of D, X and H: by the plan. */
import { imageText, loadTokenizer } from "@tessera/coordinator/request";
import { compareVariants, openModel, planPlacement } from "@tessera/model";
import { root } from "../../../harness/paths.js";
import { figure, type Figure } from "../../figure.js";

const PATCHES = 7;
const MODELS = [
  { name: "tiny", dir: root("models/nvlm-d-tiny"), kvType: "f32", ownTokenizer: true },
  { name: "72b", dir: root("test/fixtures/nvlm-d-72b"), kvType: "bf16", ownTokenizer: false },
] as const;

async function bytesOf({ name, dir, kvType, ownTokenizer }: (typeof MODELS)[number]) {
  const { config } = await openModel(dir);
  const text = imageText(PATCHES, ownTokenizer ? await loadTokenizer(dir) : undefined);
  const { maxBatchedTokens } = planPlacement(config, { size: 1, kvType });
  const costs = compareVariants(config, { size: 1, kvType, maxBatchedTokens, text });
  return costs.map(({ modelType, decoderTokens, streamRows, cacheBytes, crossCacheBytes }) =>
    figure({
      name: `images.bytes.${name}.${modelType.slice(-1).toLowerCase()}.7p`,
      value: (cacheBytes + crossCacheBytes) / 1e6,
      unit: "MB",
      measure: `planned: keys and values, ${kvType}, of ${decoderTokens} tokens and of ${streamRows} rows of the cross-attention stream`,
    }),
  );
}

export async function bytes(): Promise<Figure[]> {
  const made: Figure[] = [];
  for (const model of MODELS) made.push(...(await bytesOf(model)));
  return made;
}
