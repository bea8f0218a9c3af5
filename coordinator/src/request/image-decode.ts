/**
 * Pictures → RGB as the reference's `Image.open(f).convert("RGB")`: first frame, no EXIF rotation, no colour profile,
 * alpha dropped, CMYK as (255 − C)(255 − K) / 255. 16-bit grey keeps the high byte, where Pillow clips at 255.
 */
import sharp from "sharp";
import { ServeError } from "@tessera/proto";
import type { RgbImage } from "@tessera/native/image";
import { otherFormat, readImageHeader, type ImageHeader } from "./image-header.js";

// Pictures are decoded once: what libvips would keep of one serves no other.
sharp.cache(false);

export interface ImageLimits {
  maxBytes: number;
  maxSide: number;
  maxPixels: number;
  /** Longer side over shorter side. */
  maxAspect: number;
  /** Of an animation, whose first frame is taken. */
  maxFrames: number;
}

export const IMAGE_LIMITS: ImageLimits = {
  maxBytes: 20 << 20,
  maxSide: 16384,
  maxPixels: 64 << 20,
  maxAspect: 200,
  maxFrames: 1024,
};

/** Why a picture of this size is not taken, with limit and value; undefined when it is. */
export function sizeProblem(
  { width, height }: { width: number; height: number },
  limits: ImageLimits,
): string | undefined {
  if (width === 0 || height === 0)
    return `is ${width} × ${height} pixels, or its header is damaged`;
  if (Math.max(width, height) > limits.maxSide)
    return `is ${width} × ${height} pixels, limit ${limits.maxSide} a side`;
  if (width * height > limits.maxPixels)
    return `has ${width * height} pixels, limit ${limits.maxPixels}`;
  if (Math.max(width, height) > limits.maxAspect * Math.min(width, height))
    return `is ${width} × ${height} pixels, limit ${limits.maxAspect}:1`;
  return undefined;
}

/** @throws ServeError INVALID_IMAGE naming field, limit and value. */
export function checkImage(
  data: Uint8Array,
  options: { field: string; mediaType: string; limits: ImageLimits },
): ImageHeader {
  const { field, mediaType, limits } = options;
  const refuse = (why: string): never => {
    throw ServeError.field(field, why, "INVALID_IMAGE");
  };
  if (data.length === 0) return refuse("has 0 bytes");
  if (data.length > limits.maxBytes)
    return refuse(`has ${data.length} bytes, limit ${limits.maxBytes}`);
  const header = readImageHeader(data);
  if (header === undefined) return refuse(`is ${otherFormat(data)}; JPEG, PNG and WebP are taken`);
  if (mediaType !== "" && mediaType !== header.mediaType)
    return refuse(`is ${header.mediaType}, declared as ${JSON.stringify(mediaType)}`);
  const wrong = sizeProblem(header, limits);
  if (wrong !== undefined) return refuse(wrong);
  if (header.frames > limits.maxFrames)
    return refuse(`has ${header.frames} frames, limit ${limits.maxFrames}`);
  return header;
}

function fromCmyk(data: Buffer): Uint8Array {
  const out = new Uint8Array((data.length / 4) * 3);
  for (let i = 0, o = 0; i < data.length; i += 4) {
    const rest = 255 - (data[i + 3] ?? 0);
    for (let c = 0; c < 3; c++) {
      // Pillow's MULDIV255.
      const product = (255 - (data[i + c] ?? 0)) * rest + 128;
      out[o++] = ((product >> 8) + product) >> 8;
    }
  }
  return out;
}

function fromGrey(data: Buffer, channels: number): Uint8Array {
  const out = new Uint8Array((data.length / channels) * 3);
  for (let i = 0, o = 0; i < data.length; i += channels) {
    const value = data[i] ?? 0;
    out[o++] = value;
    out[o++] = value;
    out[o++] = value;
  }
  return out;
}

function dropAlpha(data: Buffer): Uint8Array {
  const out = new Uint8Array((data.length / 4) * 3);
  for (let i = 0, o = 0; i < data.length; i += 4) {
    out[o++] = data[i] ?? 0;
    out[o++] = data[i + 1] ?? 0;
    out[o++] = data[i + 2] ?? 0;
  }
  return out;
}

async function decodePixels(data: Uint8Array, limits: ImageLimits): Promise<RgbImage> {
  const input = sharp(data, {
    failOn: "truncated",
    limitInputPixels: limits.maxPixels,
    pages: 1,
    autoOrient: false,
  });
  const { space } = await input.metadata();
  if (space === "cmyk") {
    const { data: raw, info } = await input
      .pipelineColourspace("cmyk")
      .toColourspace("cmyk")
      .raw()
      .toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, data: fromCmyk(raw) };
  }
  const { data: raw, info } = await input.raw().toBuffer({ resolveWithObject: true });
  const pixels =
    info.channels < 3 ? fromGrey(raw, info.channels) : info.channels === 4 ? dropAlpha(raw) : raw;
  return { width: info.width, height: info.height, data: pixels };
}

/** Decodes a picture that `checkImage` took, off the event loop. */
export async function decodeImage(
  data: Uint8Array,
  options: { field: string; limits: ImageLimits },
): Promise<RgbImage> {
  try {
    return await decodePixels(data, options.limits);
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : String(cause);
    const violation = { field: options.field, description: `cannot be decoded: ${why}` };
    throw new ServeError("INVALID_IMAGE", `${violation.field}: ${violation.description}`, {
      violations: [violation],
      cause,
    });
  }
}

/** u8 [size, size, 3] as a PNG file. */
export function savePng(pixels: Uint8Array, size: number): Promise<Buffer> {
  return sharp(pixels, { raw: { width: size, height: size, channels: 3 } })
    .png()
    .toBuffer();
}
