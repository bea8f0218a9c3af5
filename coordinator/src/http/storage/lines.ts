/** Bytes → lines, one at a time. */

export interface Line {
  /** From 1; blank ones count. */
  number: number;
  /** Undefined where it has more than the limit. */
  bytes: Buffer | undefined;
}

/** Puts pieces of a line together, of one that is too long none. */
class Pieces {
  private pieces: Buffer[] = [];
  private length = 0;

  constructor(private readonly limit: number) {}

  add(piece: Buffer): void {
    this.length += piece.length;
    if (this.length > this.limit) this.pieces = [];
    else if (piece.length > 0) this.pieces.push(piece);
  }

  get empty(): boolean {
    return this.length === 0;
  }

  take(): Buffer | undefined {
    const bytes = this.length > this.limit ? undefined : Buffer.concat(this.pieces);
    this.pieces = [];
    this.length = 0;
    return bytes;
  }
}

const NEWLINE = 10;

function blank(bytes: Buffer | undefined): boolean {
  return bytes !== undefined && bytes.every((byte) => byte <= 32);
}

/** Without blank ones; at most `limit` bytes of a line are held. */
export async function* linesOf(source: AsyncIterable<Buffer>, limit: number): AsyncGenerator<Line> {
  const pieces = new Pieces(limit);
  let number = 1;
  for await (const chunk of source) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      pieces.add(chunk.subarray(start, end));
      start = end + 1;
      const bytes = pieces.take();
      if (!blank(bytes)) yield { number, bytes };
      number++;
    }
    pieces.add(chunk.subarray(start));
  }
  if (pieces.empty) return;
  const bytes = pieces.take();
  if (!blank(bytes)) yield { number, bytes };
}
