/** A file of JSON lines, as commands read it. */
import { readFile } from "node:fs/promises";
import { TesseraError } from "@tessera/client";

/** What is wrong with one line, as it is told in the output. */
export interface LineFault {
  code: string;
  message: string;
  param: string | null;
}

export interface RawLine {
  bytes: Uint8Array;
  /** Counted from 1, empty lines included. */
  number: number;
}

export function fault(code: string, message: string, param: string | null = null): LineFault {
  return { code, message, param };
}

export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** @throws Error saying why the bytes are no object of JSON */
export function parseJson(bytes: Uint8Array): Record<string, unknown> {
  const json: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new TypeError("it is no JSON object");
  return json as Record<string, unknown>;
}

/** Lines that are not blank. */
export function* splitLines(bytes: Buffer): Generator<RawLine> {
  for (let start = 0, number = 1; start < bytes.length; number++) {
    const end = bytes.indexOf(10, start);
    const stop = end < 0 ? bytes.length : end;
    const line = bytes.subarray(start, stop);
    if (line.toString("latin1").trim() !== "") yield { bytes: line, number };
    start = stop + 1;
  }
}

/** @throws Error naming command and file */
export async function readLines(command: string, path: string): Promise<RawLine[]> {
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new Error(`${command}: input ${path} cannot be read: ${reason(cause)}`, { cause });
  });
  return [...splitLines(bytes)];
}

/** A failure of one line's work. */
export function describe(error: unknown): LineFault {
  if (error instanceof TesseraError)
    return fault(error.code.toLowerCase(), error.message, error.violations[0]?.field ?? null);
  const known = error as { code?: string; message?: string; violations?: { field: string }[] };
  return fault(
    (known.code ?? "error").toLowerCase(),
    known.message ?? String(error),
    known.violations?.[0]?.field ?? null,
  );
}
