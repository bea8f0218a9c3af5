/** Kind, size and frames of a picture without decoding it, so that nothing is decoded that will be refused. */

export interface ImageHeader {
  mediaType: "image/png" | "image/jpeg" | "image/webp";
  width: number;
  height: number;
  /** Of an animation, as far as its chunks can be read; 1 for a still picture. */
  frames: number;
}

const PNG = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

/** What an animated PNG's acTL chunk says, which stands before the first IDAT. */
function pngFrames(bytes: Buffer): number {
  for (let at = 8; at + 12 <= bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    const chunk = bytes.toString("latin1", at + 4, at + 8);
    if (chunk === "acTL") return Math.max(1, bytes.readUInt32BE(at + 8));
    if (chunk === "IDAT") break;
  }
  return 1;
}

function png(bytes: Buffer): ImageHeader | undefined {
  if (bytes.length < 24 || !bytes.subarray(0, 8).equals(PNG)) return undefined;
  return {
    mediaType: "image/png",
    width: bytes.readUInt32BE(16),
    height: bytes.readUInt32BE(20),
    frames: pngFrames(bytes),
  };
}

/** Start-of-frame markers; C4, C8 and CC are other things. */
function isFrame(marker: number): boolean {
  return marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
}

function jpeg(bytes: Buffer): ImageHeader | undefined {
  if (bytes.length < 4 || bytes[0] !== 0xff || bytes[1] !== 0xd8) return undefined;
  const header: ImageHeader = { mediaType: "image/jpeg", width: 0, height: 0, frames: 1 };
  let at = 2;
  while (at + 9 < bytes.length) {
    if (bytes[at] !== 0xff) return header;
    const marker = bytes[at + 1] ?? 0;
    if (marker === 0xff) {
      at++;
    } else if (isFrame(marker)) {
      return { ...header, height: bytes.readUInt16BE(at + 5), width: bytes.readUInt16BE(at + 7) };
    } else {
      at += 2 + bytes.readUInt16BE(at + 2);
    }
  }
  return header;
}

/** ANMF chunks of an animated WebP. */
function webpFrames(bytes: Buffer): number {
  let frames = 0;
  // Chunks are padded to whole pairs of bytes.
  for (let at = 12; at + 8 <= bytes.length; at += 8 + 2 * Math.ceil(bytes.readUInt32LE(at + 4) / 2))
    if (bytes.toString("latin1", at, at + 4) === "ANMF") frames++;
  return Math.max(1, frames);
}

function webp(bytes: Buffer): ImageHeader | undefined {
  if (bytes.length < 30 || bytes.toString("latin1", 0, 4) !== "RIFF") return undefined;
  if (bytes.toString("latin1", 8, 12) !== "WEBP") return undefined;
  const mediaType = "image/webp";
  switch (bytes.toString("latin1", 12, 16)) {
    case "VP8 ":
      return {
        mediaType,
        width: bytes.readUInt16LE(26) & 0x3fff,
        height: bytes.readUInt16LE(28) & 0x3fff,
        frames: 1,
      };
    case "VP8L": {
      const bits = bytes.readUInt32LE(21);
      const height = ((bits >>> 14) & 0x3fff) + 1;
      return { mediaType, width: (bits & 0x3fff) + 1, height, frames: 1 };
    }
    case "VP8X":
      return {
        mediaType,
        width: bytes.readUIntLE(24, 3) + 1,
        height: bytes.readUIntLE(27, 3) + 1,
        frames: webpFrames(bytes),
      };
    default:
      return { mediaType, width: 0, height: 0, frames: 1 };
  }
}

/** Undefined when the bytes are none of JPEG, PNG and WebP. A size of 0 means that the header is damaged. */
export function readImageHeader(bytes: Uint8Array): ImageHeader | undefined {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return png(buffer) ?? jpeg(buffer) ?? webp(buffer);
}

/** What other known formats are called in a refusal. */
export function otherFormat(bytes: Uint8Array): string {
  const head = Buffer.from(bytes.subarray(0, 256)).toString("latin1");
  if (head.startsWith("GIF8")) return "a GIF";
  if (head.startsWith("II*\0") || head.startsWith("MM\0*")) return "a TIFF";
  if (/<svg|<\?xml/i.test(head)) return "an SVG";
  if (head.startsWith("BM")) return "a BMP";
  return "no picture";
}
