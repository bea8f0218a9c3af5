/** Pictures for the coordinator: bicubic resize as Pillow ≤ 10.4, u8 in and out, off the JavaScript thread. */
import { loadAddon } from "./addon.js";

export interface RgbImage {
  width: number;
  height: number;
  /** u8 [height, width, 3]. */
  data: Uint8Array;
}

/** Horizontal pass first, u8 between the passes, a = −0.5, support widened when shrinking. */
export function resizeBicubic(
  image: RgbImage,
  size: { width: number; height: number },
): Promise<RgbImage> {
  return loadAddon().resizeBicubic(image, size);
}

/** (u8 / 255 − mean) / std in f32, ImageNet's constants: u8 [s, s, 3] → f32 [3, s, s]. */
export function normalise(tile: Uint8Array, size: number): Float32Array {
  return loadAddon().normalise(tile, size);
}
