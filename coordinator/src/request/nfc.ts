/**
 * Unicode's NFC in linear time. ICU sorts the marks behind a letter by insertion, which takes a minute for a megabyte of
 * them; a long run is put into canonical order before, which does not change what it is.
 */

/** Runs up to this are left to ICU. */
const LONG_RUN = 128;

/** Of the lowest and the highest combining class. */
const LOW = "\u0334";
const HIGH = "\u0345";

/** Whether the order of the two is the other way round: both combine, `first` in a higher class. */
function swaps(first: string, second: string): boolean {
  return first !== second && (first + second).normalize("NFD") === second + first;
}

/** Class 0: nothing moves past it. */
function isStarter(mark: string): boolean {
  return !swaps(mark, LOW) && !swaps(HIGH, mark);
}

/** Combining classes of some marks, as numbers in the same order. */
function classes(marks: Iterable<string>): Map<string, number> {
  const sorted = [...marks].sort((a, b) => Number(swaps(a, b)) - Number(swaps(b, a)));
  let rank = 0;
  return new Map(
    sorted.map((mark, i) => {
      if (i > 0 && swaps(mark, sorted[i - 1] ?? "")) rank++;
      return [mark, rank];
    }),
  );
}

/** A run of marks, decomposed and in canonical order. */
function ordered(run: string): string {
  const parts = new Map<string, string>();
  for (const mark of new Set(run)) parts.set(mark, mark.normalize("NFD"));
  const marks = new Set([...parts.values()].flatMap((part) => [...part]));
  const combining = [...marks].filter((mark) => !isStarter(mark));
  const classOf = classes(combining);
  let pending: string[][] = [];
  const out: string[] = [];
  const flush = () => {
    for (const list of pending) if (list !== undefined) out.push(list.join(""));
    pending = [];
  };
  for (const mark of run)
    for (const part of parts.get(mark) ?? mark) {
      const rank = classOf.get(part);
      if (rank === undefined) {
        flush();
        out.push(part);
      } else (pending[rank] ??= []).push(part);
    }
  flush();
  return out.join("");
}

/** One match takes so many marks at most: an expression's stack is small. */
const MARKS = /\p{M}{1,4096}/gu;

/** Places [start, end) of runs of marks that are long. */
function longRuns(text: string): [start: number, end: number][] {
  const runs: [number, number][] = [];
  let [start, end] = [0, 0];
  const note = () => void (end - start > LONG_RUN && runs.push([start, end]));
  for (const { index, 0: found } of text.matchAll(MARKS)) {
    if (index !== end) {
      note();
      start = index;
    }
    end = index + found.length;
  }
  note();
  return runs;
}

/** The same as `text.normalize("NFC")`. */
export function nfc(text: string): string {
  let tame = "";
  let done = 0;
  for (const [start, end] of longRuns(text)) {
    tame += text.slice(done, start) + ordered(text.slice(start, end));
    done = end;
  }
  return (tame + text.slice(done)).normalize("NFC");
}
