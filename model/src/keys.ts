/** Reading one object of config.json. */
import { ModelError } from "./errors.js";

/** Of any width or length; native code indexes with 32 bits. */
const MAX_SIZE = 2 ** 24;

/** Reads keys of one object of config.json, collecting the path for messages. */
export class Keys {
  constructor(
    private readonly value: Record<string, unknown>,
    private readonly path: string,
  ) {}
  static of(value: unknown, path: string): Keys {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw new ModelError("BAD_MODEL", `config.json: ${path || "the file"} must be an object`);
    return new Keys(value as Record<string, unknown>, path);
  }
  object(key: string): Keys {
    return Keys.of(this.value[key], this.name(key));
  }
  objectOr(key: string, fallback: Record<string, unknown>): Keys {
    return Keys.of(this.value[key] ?? fallback, this.name(key));
  }
  has(key: string): boolean {
    return this.value[key] !== undefined && this.value[key] !== null;
  }
  raw(key: string): unknown {
    return this.value[key];
  }
  number(key: string, fallback?: number): number {
    const value = this.value[key] ?? fallback;
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0)
      this.wrong(key, "must be a number above 0");
    return value;
  }
  whole(key: string, fallback?: number, limit = MAX_SIZE): number {
    const value = this.number(key, fallback);
    if (!Number.isInteger(value)) this.wrong(key, "must be a whole number");
    if (value > limit) this.wrong(key, `limit ${limit}`);
    return value;
  }
  oneOf<T>(key: string, allowed: readonly T[], fallback?: T): T {
    const value = this.value[key] ?? fallback;
    if (!allowed.includes(value as T)) this.wrong(key, `must be ${allowed.join(" or ")}`);
    return value as T;
  }
  /** Refuses keys that are not named. */
  only(known: readonly string[]): void {
    const unknown = Object.keys(this.value).find((key) => !known.includes(key));
    if (unknown !== undefined) this.wrong(unknown, `is not known; known: ${known.join(", ")}`);
  }
  wrong(key: string, must: string): never {
    const value = JSON.stringify(this.value[key]) ?? "missing";
    throw new ModelError("BAD_MODEL", `config.json: ${this.name(key)} is ${value}, ${must}`);
  }
  private name(key: string): string {
    return this.path === "" ? key : `${this.path}.${key}`;
  }
}
