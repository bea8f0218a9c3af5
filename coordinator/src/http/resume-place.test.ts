import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ServeError } from "@tessera/proto";
import { placePrefix, readPlace, type PlacedFormat } from "./resume-place.js";

const token = fc.stringMatching(/^[\w-]{24}$/);
const format: fc.Arbitrary<PlacedFormat> = fc.record(
  {
    kind: fc.constantFrom("chat" as const, "text" as const),
    usage: fc.constantFrom("none" as const, "end" as const, "always" as const),
    n: fc.integer({ min: 1, max: 16 }),
    createdSeconds: fc.integer({ min: 0, max: 2 ** 40 }),
    tokenIds: fc.boolean(),
    logprobs: fc.boolean(),
    promptLogprobs: fc.boolean(),
    echo: fc.boolean(),
  },
  { noNullPrototype: true },
);

test("place: every format and index is read as it was written", () => {
  fc.assert(
    fc.property(token, format, fc.integer({ min: 0, max: 1e9 }), (resumeToken, of, index) => {
      const place = readPlace(`${placePrefix(resumeToken, of)}:${index}`);
      assert.deepEqual(place, { resumeToken, format: of, index });
    }),
  );
});

test("place: any other text is refused by name", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.constantFrom(":", "a.c1.0:x", "a.x1.0:1")), (text) => {
      assert.throws(
        () => readPlace(text),
        (error: unknown) =>
          error instanceof ServeError && error.violations[0]?.field === "last-event-id",
      );
    }),
  );
});
