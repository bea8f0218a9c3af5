/** Ids of a request where lm_head has fewer rows than the tokenizer has tokens. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { ServeError } from "@tessera/proto";
import { GenerateRequestSchema, Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { REQUEST_LIMITS } from "./check-context.js";
import { checkRequest } from "./check.js";
import { prepareRequest, type PrepareContext } from "./prepare.js";
import { TextQueue } from "./text-queue.js";
import { loadTokenizer } from "./tokenizer.js";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const tokenizer = await loadTokenizer(root("models/nvlm-d-tiny"));
const WORD = "the total";
const ids = tokenizer.encode(WORD, { special: false });
const selectableIds = Math.max(...ids);
const context: PrepareContext = {
  servedName: "m",
  tokenizer,
  limits: REQUEST_LIMITS,
  maxModelLen: 4096,
  selectableIds,
  stopTokenIds: [],
  defaultMaxTiles: 6,
  randomSeed: () => 7n,
  tile: { size: 448, useThumbnail: true, rows: 256 },
  template: "nvlm",
  texts: new TextQueue(tokenizer.bpe),
  layout: { tags: "all", rowsInText: true },
  room: { tiles: 256, crossBlocks: 0, streamRows: 0 },
};
type Init = MessageInitShape<typeof GenerateRequestSchema>;
const check = (request: Init) =>
  checkRequest(create(GenerateRequestSchema, { tokenIds: [1], ...request }), context);

const rows: [field: string, request: Init][] = [
  ["token_ids", { tokenIds: [selectableIds] }],
  ["sampling.logit_bias", { sampling: { logitBias: { [selectableIds]: 1 } } }],
  ["sampling.allowed_token_ids", { sampling: { allowedTokenIds: [1, selectableIds] } }],
  ["sampling.bad_words[1]", { sampling: { badWords: ["!", WORD] } }],
  ["stop.token_ids", { stop: { tokenIds: [selectableIds] } }],
];
for (const [field, request] of rows)
  test(`an id of the tokenizer beyond lm_head is refused in ${field}`, () => {
    assert.ok(selectableIds < tokenizer.size);
    assert.throws(
      () => check(request),
      ({ code, violations }: ServeError) => {
        assert.equal(code, "INVALID_ARGUMENT");
        const description = `have ${selectableIds}, the vocabulary ends at ${selectableIds - 1}`;
        assert.deepEqual(violations, [{ field, description }]);
        return true;
      },
    );
  });

test("a text whose token is beyond lm_head is refused", async () => {
  const messages = [
    { role: Role.USER, parts: [{ content: { case: "text" as const, value: WORD } }] },
  ];
  const checked = check({ tokenIds: [], messages });
  const never = new AbortController().signal;
  await assert.rejects(prepareRequest(checked, { requestId: "r", tenant: "t" }, context, never), {
    code: "INVALID_ARGUMENT",
    message: /^messages: have token \d+, the vocabulary ends at \d+$/,
  });
});

test("a conversation whose text cannot fit the context is refused before it is tokenised", async () => {
  const text = (value: string) => ({ content: { case: "text" as const, value } });
  const half = " ".repeat(context.maxModelLen * 64);
  const messages = [{ role: Role.USER, parts: [text(half), text(`${half}.`)] }];
  const checked = check({ tokenIds: [], messages });
  const texts = { encode: () => assert.fail("it is tokenised") };
  const never = new AbortController().signal;
  const unread = { ...context, texts };
  await assert.rejects(prepareRequest(checked, { requestId: "r", tenant: "t" }, unread, never), {
    code: "CONTEXT_TOO_LONG",
    message: `messages: has more than ${context.maxModelLen * 128} bytes, the context has ${context.maxModelLen} tokens`,
  });
});

test("allowed ids that are given twice become one", () => {
  const { sampling } = check({ sampling: { allowedTokenIds: [3, 2, 3, 2] } });
  assert.deepEqual(sampling.allowedTokenIds, [3, 2]);
});
