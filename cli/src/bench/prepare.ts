/** What a load needs before it begins: the server reached, its tokens counted, prompts and pictures ready. */
import { clientSecurity } from "../commands/security-flags.js";
import { readDataset, type Dataset } from "./dataset.js";
import { GrpcTarget } from "./grpc-target.js";
import { HttpTarget } from "./http-target.js";
import { makePictures, type Picture } from "./pictures.js";
import { sourceOf } from "./random.js";
import type { BenchFlags, BenchSettings } from "./settings.js";
import type { ServerInfo, Target } from "./target.js";
import { fitOf, ONE_A_WORD, wordsText, type TokenFit } from "./words.js";

export interface Prepared {
  target: Target;
  server: ServerInfo;
  fit: TokenFit;
  pictures: Picture[];
  dataset: Dataset | undefined;
}

/** Words of the two texts whose tokens the server counts. */
const CALIBRATION = { short: 16, long: 112 };

/** @throws TesseraError CONFIGURATION for files of TLS that are none. */
function targetOf(flags: BenchFlags, settings: BenchSettings): Target {
  const { model, temperature, endpoint, serverKind } = flags;
  const { address, extraBody } = settings;
  const { apiKey, tls } = clientSecurity({ ...flags, server: flags.server ?? "" });
  const requestDeadlineMs = flags.requestTimeout * 1e3;
  const common = { apiKey, model, temperature, tls, requestDeadlineMs };
  if (address.kind === "grpc") return new GrpcTarget({ ...common, address: address.server });
  const { baseUrl } = address;
  return new HttpTarget({ ...common, baseUrl, endpoint, kind: serverKind, extraBody });
}

/** Words to tokens by the server's own count. @throws Error */
async function calibrate(target: Target, seed: number): Promise<TokenFit> {
  const counted = async (words: number) => {
    const text = wordsText(sourceOf(seed, `calibration/${words}`), words);
    return { words, tokens: await target.countTokens(text) };
  };
  const [short, long] = [await counted(CALIBRATION.short), await counted(CALIBRATION.long)];
  if (short.tokens === undefined || long.tokens === undefined) return ONE_A_WORD;
  const known = { ...short, tokens: short.tokens };
  return fitOf(known, { ...long, tokens: long.tokens });
}

/** @throws Error when the server is not there, before anything is made. */
export async function prepare(flags: BenchFlags, settings: BenchSettings): Promise<Prepared> {
  const { dataset: file, seed, imageShare, imageCount: count } = flags;
  const target = targetOf(flags, settings);
  try {
    const server = await target.check();
    const dataset = file === undefined ? undefined : await readDataset(file);
    const fit = dataset === undefined ? await calibrate(target, seed) : ONE_A_WORD;
    const sizes = settings.pictureSizes;
    const pictures = imageShare > 0 ? await makePictures(sizes, { count, seed }) : [];
    return { target, server, fit, pictures, dataset };
  } catch (error) {
    await target.close();
    throw error;
  }
}
