/** A batch's lines: which are wrong, and what the others ask for. */
import { ServeError } from "@tessera/proto";
import { asObject, type Json } from "@tessera/proto/openai";
import { parseJson } from "../json-body.js";
import type { Line } from "../storage/lines.js";
import type { Endpoint, LineFault } from "./record.js";

export const MAX_LINES = 50_000;
export const MAX_CUSTOM_ID = 512;
/** Told of a file; there may be more. */
export const MAX_FAULTS = 100;

export interface Entry {
  line: number;
  customId: string;
  body: unknown;
}

type Read = { entry: Entry } | { fault: LineFault };

function parse(bytes: Buffer): { json: Json } | { problem: string } {
  try {
    return { json: asObject(parseJson(bytes), "line") };
  } catch (error) {
    return { problem: ServeError.from(error).message };
  }
}

export function readLine(
  { number: line, bytes }: Line,
  { endpoint, maxBytes }: { endpoint: Endpoint; maxBytes: number },
): Read {
  const fault = (code: string, message: string, param: string | null = null): Read => ({
    fault: { code, message, param, line },
  });
  if (bytes === undefined) return fault("line_too_long", `has more than ${maxBytes} bytes`);
  const read = parse(bytes);
  if ("problem" in read) return fault("invalid_json_line", read.problem);
  const { custom_id: customId, method, url, body } = read.json;
  if (typeof customId !== "string" || customId === "" || customId.length > MAX_CUSTOM_ID)
    return fault(
      "invalid_custom_id",
      `custom_id must be a text of 1 to ${MAX_CUSTOM_ID} characters`,
      "custom_id",
    );
  if (method !== "POST") return fault("invalid_method", "method must be POST", "method");
  if (url !== endpoint)
    return fault("mismatched_endpoint", `url must be the batch's, ${endpoint}`, "url");
  if (typeof body !== "object" || body === null || Array.isArray(body))
    return fault("invalid_body", "body must be an object", "body");
  return { entry: { line, customId, body } };
}

/** Goes through a file's lines once. */
export class InputCheck {
  readonly faults: LineFault[] = [];
  private readonly seen = new Set<string>();
  total = 0;

  add(read: Read): void {
    this.total++;
    if ("fault" in read) return this.fault(read.fault);
    const { customId, line } = read.entry;
    if (this.seen.has(customId))
      return this.fault({
        code: "duplicate_custom_id",
        message: `custom_id ${JSON.stringify(customId)} was there before`,
        param: "custom_id",
        line,
      });
    this.seen.add(customId);
  }

  private fault(one: LineFault): void {
    if (this.faults.length < MAX_FAULTS) this.faults.push(one);
  }

  /** More lines would change nothing. */
  get over(): boolean {
    return this.total > MAX_LINES || this.faults.length >= MAX_FAULTS;
  }

  finish(): void {
    const whole = { param: null, line: null };
    if (this.total === 0)
      this.fault({ ...whole, code: "empty_file", message: "the file has no lines" });
    if (this.total > MAX_LINES)
      this.fault({
        ...whole,
        code: "too_many_lines",
        message: `the file has more than ${MAX_LINES} lines`,
      });
  }
}
