/** Capitals and digits of 5 × 7 dots as SVG: text of an SVG needs the machine's fonts, and a container may have none. */

export const GLYPH_HEIGHT = 7;
const ADVANCE = 6;

/** Seven rows of five dots, the leftmost in bit 4, two hex digits a row. */
const GLYPHS: Record<string, string> = {
  " ": "00000000000000",
  "0": "0e11131519110e",
  "1": "040c040404040e",
  "2": "0e11010204081f",
  "3": "1f02040201110e",
  "4": "02060a121f0202",
  "5": "1f101e0101110e",
  "6": "0608101e11110e",
  "7": "1f010204080808",
  "8": "0e11110e11110e",
  "9": "0e11110f01020c",
  A: "0e11111f111111",
  B: "1e11111e11111e",
  C: "0e11101010110e",
  D: "1c12111111121c",
  E: "1f10101e10101f",
  F: "1f10101e101010",
  G: "0e11101711110f",
  H: "1111111f111111",
  I: "0e04040404040e",
  J: "0702020202120c",
  K: "11121418141211",
  L: "1010101010101f",
  M: "111b1515111111",
  N: "11111915131111",
  O: "0e11111111110e",
  P: "1e11111e101010",
  Q: "0e11111115120d",
  R: "1e11111e141211",
  S: "0f10100e01011e",
  T: "1f040404040404",
  U: "1111111111110e",
  V: "11111111110a04",
  W: "1111111515150a",
  X: "11110a040a1111",
  Y: "1111110a040404",
  Z: "1f01020408101f",
  "×": "00110a040a1100",
  "-": "0000001f000000",
  ",": "000000000c0408",
  ":": "000c0c000c0c00",
};

/** Pixels of a line whose dots are `scale` pixels wide. */
export function textWidth(text: string, scale: number): number {
  return Math.max(0, text.length * ADVANCE - 1) * scale;
}

/** An SVG path of the line, its upper left corner at (x, y). @throws RangeError for a letter that is not drawn. */
export function textPath(
  text: string,
  { x, y, scale, fill }: { x: number; y: number; scale: number; fill: string },
): string {
  const dots = [...text].flatMap((letter, at) => {
    const glyph = GLYPHS[letter];
    if (glyph === undefined) throw new RangeError(`no glyph for ${JSON.stringify(letter)}`);
    return [...Array(GLYPH_HEIGHT).keys()].flatMap((row) => {
      const bits = Number.parseInt(glyph.slice(2 * row, 2 * row + 2), 16);
      return [0, 1, 2, 3, 4]
        .filter((column) => (bits >> (4 - column)) & 1)
        .map((column) => {
          const [left, top] = [x + (ADVANCE * at + column) * scale, y + row * scale];
          return `M${left} ${top}h${scale}v${scale}h${-scale}z`;
        });
    });
  });
  return `<path fill="${fill}" d="${dots.join("")}"/>`;
}
