/** One line of what is to be scored. */
import { parseJson, fault, reason, type LineFault, type RawLine } from "../lines/lines.js";

/** A text as it is, ready token ids, or the answer to a prompt with pictures. */
export type Scored =
  | { kind: "text"; text: string }
  | { kind: "tokens"; tokenIds: number[] }
  | { kind: "answer"; text: string; prompt: string; images: string[] };

export interface ScoreLine {
  /** In the file, counted from 1. */
  number: number;
  id: string | null;
  scored?: Scored;
  error?: LineFault;
}

const FIELDS = ["id", "text", "token_ids", "prompt", "images"];

class FieldError extends Error {
  constructor(
    readonly field: string,
    what: string,
  ) {
    super(`${field}: ${what}`);
  }
}

function textOf(json: Record<string, unknown>, field: string): string | undefined {
  const value = json[field];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "string") throw new FieldError(field, "must be a text");
  return value;
}

function idsOf(value: unknown): number[] {
  if (!Array.isArray(value) || !value.every((id) => Number.isSafeInteger(id) && Number(id) >= 0))
    throw new FieldError("token_ids", "must be a list of whole numbers");
  if (value.length === 0) throw new FieldError("token_ids", "is empty");
  return value as number[];
}

function imagesOf(value: unknown): string[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || !value.every((url) => typeof url === "string"))
    throw new FieldError("images", "must be a list of file: or data URLs");
  return value;
}

function scoredOf(json: Record<string, unknown>): Scored {
  const unknown = Object.keys(json).find((key) => !FIELDS.includes(key));
  if (unknown !== undefined)
    throw new FieldError(unknown, `is not known, a line has ${FIELDS.join(", ")}`);
  const [text, prompt] = [textOf(json, "text"), textOf(json, "prompt")];
  const images = imagesOf(json["images"]);
  const ids = json["token_ids"];
  if (ids !== undefined) {
    const other = ["text", "prompt", "images"].find((field) => json[field] !== undefined);
    if (other !== undefined) throw new FieldError(other, "is given beside token_ids");
    return { kind: "tokens", tokenIds: idsOf(ids) };
  }
  if (text === undefined) throw new FieldError("text", "is missing, and so are token_ids");
  if (text === "") throw new FieldError("text", "is empty");
  if (prompt === undefined && images.length === 0) return { kind: "text", text };
  return { kind: "answer", text, prompt: prompt ?? "", images };
}

/** What is wrong names the line. */
export function parseScoreLine({ bytes, number }: RawLine): ScoreLine {
  let json: Record<string, unknown>;
  try {
    json = parseJson(bytes);
  } catch (error) {
    const message = `line ${number}: ${reason(error)}`;
    return { number, id: null, error: fault("invalid_json", message) };
  }
  const { id } = json;
  try {
    return { number, id: textOf(json, "id") ?? null, scored: scoredOf(json) };
  } catch (error) {
    const message = `line ${number}: ${reason(error)}`;
    const field = error instanceof FieldError ? error.field : null;
    const known = typeof id === "string" ? id : null;
    return { number, id: known, error: fault("invalid_request", message, field) };
  }
}
