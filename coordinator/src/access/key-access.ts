/** Callers by the keys of a file. */
import { createHash, timingSafeEqual } from "node:crypto";
import { ServeError } from "@tessera/proto";
import type { Access } from "./access.js";
import type { Caller } from "./caller.js";
import { readKeys, type Key } from "./keys-file.js";

/** Characters of the header. */
export const MAX_AUTHORIZATION = 512;
const BEARER = /^bearer +([\x21-\x7e]+)$/i;

/** The header is never said, logged or kept. */
function refusal(description: string): ServeError {
  return ServeError.field("authorization", description, "UNAUTHENTICATED");
}

export class KeyAccess implements Access {
  private constructor(
    private readonly file: string,
    private keys: readonly Key[],
  ) {}

  /** @throws ServeError CONFIGURATION */
  static open(file: string): KeyAccess {
    return new KeyAccess(file, readKeys(file));
  }

  get keyCount(): number {
    return this.keys.length;
  }

  /** Reads the file again; calls under way go on. @throws ServeError CONFIGURATION, and the keys stay what they were */
  reload(): void {
    this.keys = readKeys(this.file);
  }

  authenticate(authorization: string | undefined): Caller {
    if (authorization === undefined || authorization === "")
      throw refusal("is missing, Bearer and a key are needed");
    if (authorization.length > MAX_AUTHORIZATION)
      throw refusal(`has ${authorization.length} characters, limit ${MAX_AUTHORIZATION}`);
    const key = BEARER.exec(authorization)?.[1];
    if (key === undefined) throw refusal("must be Bearer and a key");
    const digest = createHash("sha256").update(key).digest();
    let found: Caller | undefined;
    // Every key is looked at, so that the time says nothing of where one stands.
    for (const { sha256, caller } of this.keys)
      found = timingSafeEqual(sha256, digest) ? caller : found;
    if (found === undefined) throw refusal("the key is not known");
    return found;
  }
}
