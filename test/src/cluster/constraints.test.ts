/** Answers that must match something, through real clusters: every kind, the same at both widths, what is refused. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { Role, type GenerateInput } from "@tessera/client";
import { FinishReason, ToolMode } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { essence, serve } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { heldCount } from "../harness/shard-stats.js";

const served = await Promise.all([1, 2].map((size) => serve(size)));
after(() => Promise.all(served.map(({ stop }) => stop())));
const [{ client } = assert.fail()] = served;

const ask = {
  role: Role.USER,
  parts: [{ content: { case: "text" as const, value: "Describe a person." } }],
};
const good: GenerateInput = {
  messages: [ask],
  maxTokens: 200,
  returnTokenIds: true,
  n: 2,
  sampling: { temperature: 1, seed: 11n },
};
const person = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 120 },
    tags: { type: "array", items: { enum: ["a", "b"] }, maxItems: 3 },
  },
  required: ["name", "age", "tags"],
  additionalProperties: false,
};
const valid = new Ajv2020().compile(person);
type Constraint = NonNullable<GenerateInput["constraint"]>;

/** The seed is one whose answers end by themselves. */
const kinds: [
  name: string,
  constraint: Constraint,
  matches: (text: string) => boolean,
  seed: bigint,
][] = [
  [
    "a JSON schema",
    { kind: { case: "jsonSchema", value: JSON.stringify(person) } },
    (text) => valid(JSON.parse(text)),
    11n,
  ],
  [
    "a JSON object",
    { kind: { case: "jsonObject", value: true } },
    (text) => typeof JSON.parse(text) === "object" && text.startsWith("{"),
    5n,
  ],
  [
    "a regular expression",
    { kind: { case: "regex", value: "[a-c]{3}-\\d{4}" } },
    (text) => /^[a-c]{3}-\d{4}$/.test(text),
    11n,
  ],
  [
    "one of some texts",
    { kind: { case: "choice", value: { texts: ["yes", "no", "it depends"] } } },
    (text) => ["yes", "no", "it depends"].includes(text),
    11n,
  ],
  [
    "a grammar",
    { kind: { case: "grammar", value: 'root ::= "a" root "b" | "-"' } },
    (text) => /^(a*)-(b*)$/.test(text) && text.indexOf("-") * 2 === text.length - 1,
    11n,
  ],
];
for (const [name, constraint, matches, seed] of kinds)
  test(`${name}: every choice matches, and both widths give the same bits`, async () => {
    const answers = await Promise.all(
      served.map((one) =>
        one.client.generateOnce({
          ...good,
          constraint,
          topLogprobs: 1,
          sampling: { temperature: 1, seed },
        }),
      ),
    );
    const [one, two] = answers;
    assert.ok(one !== undefined && two !== undefined);
    assert.deepEqual(essence(one), essence(two));
    assert.equal(one.choices.length, 2);
    for (const { text, finished } of one.choices) {
      assert.equal(finished?.reason, FinishReason.STOP, text);
      assert.ok(matches(text), text);
    }
  });

test("an answer cut by max_tokens says so, and is the beginning of the whole one", async () => {
  const constraint: Constraint = { kind: { case: "jsonSchema", value: JSON.stringify(person) } };
  const whole = await client.generateOnce({ ...good, n: 1, constraint });
  const cut = await client.generateOnce({ ...good, n: 1, constraint, maxTokens: 6 });
  assert.equal(cut.choices[0]?.finished?.reason, FinishReason.LENGTH);
  assert.ok(whole.choices[0]?.text.startsWith(cut.choices[0].text));
});

const parameters = {
  type: "object",
  properties: { city: { type: "string", maxLength: 8 } },
  required: ["city"],
  additionalProperties: false,
};
const tools = [{ name: "weather", description: "Of a city", parameters }];
const validCall = new Ajv2020().compile(parameters);

for (const [name, toolChoice] of [
  ["required", { kind: { case: "mode" as const, value: ToolMode.REQUIRED } }],
  ["named", { kind: { case: "name" as const, value: "weather" } }],
] as const)
  test(`tool_choice ${name}: the answer is a call whose arguments fit the schema, streamed in pieces`, async () => {
    const request = { ...good, n: 1, tools, toolChoice, parallelToolCalls: false };
    const { choices } = await client.generateOnce(request);
    const [choice] = choices;
    assert.equal(choice?.finished?.reason, FinishReason.TOOL_CALLS);
    assert.equal(choice.text.trim(), "");
    assert.equal(choice.toolCalls.length, 1);
    const [call] = choice.toolCalls;
    assert.equal(call?.name, "weather");
    assert.ok(validCall(JSON.parse(call.arguments)), call.arguments);
    let streamed = "";
    for await (const { kind } of client.generate(request))
      if (kind.case === "delta")
        streamed += kind.value.toolCalls.map((piece) => piece.arguments).join("");
    assert.equal(streamed, call.arguments);
  });

test("a strict tool under auto: whatever the model does, calls that it makes fit the schema", async () => {
  const strict = tools.map((tool) => ({ ...tool, strict: true }));
  const answers = await Promise.all(
    [1n, 2n, 3n, 4n].map((seed) =>
      client.generateOnce({ ...good, tools: strict, sampling: { temperature: 1, seed } }),
    ),
  );
  for (const { toolCalls, finished } of answers.flatMap(({ choices }) => choices)) {
    assert.ok([FinishReason.STOP, FinishReason.TOOL_CALLS].includes(finished?.reason ?? 0));
    for (const call of toolCalls) assert.ok(validCall(JSON.parse(call.arguments)), call.arguments);
  }
});

const refused: [name: string, constraint: Constraint, message: RegExp][] = [
  [
    "a keyword that is not enforced",
    {
      kind: {
        case: "jsonSchema",
        value: JSON.stringify({ type: "array", items: { type: "string" }, uniqueItems: true }),
      },
    },
    /^constraint\.json_schema: #\/uniqueItems/,
  ],
  ["no JSON", { kind: { case: "jsonSchema", value: "{" } }, /^constraint\.json_schema: /],
  ["a broken pattern", { kind: { case: "regex", value: "(" } }, /^constraint\.regex: /],
  [
    "a broken grammar",
    { kind: { case: "grammar", value: 'root ::= "a' } },
    /^constraint\.grammar: line 1/,
  ],
  ["a tag that is none", { kind: { case: "structuralTag", value: "{}" } }, /^constraint\.struct/],
];
for (const [name, constraint, message] of refused)
  test(`refused before anything is computed: ${name}`, async () => {
    const request = { ...good, constraint };
    await assert.rejects(client.generateOnce(request), { code: "INVALID_ARGUMENT", message });
  });

test("a constrained stream that is cut off leaves nothing behind, and others go on", async () => {
  const constraint: Constraint = { kind: { case: "grammar", value: "root ::= [a-z]+" } };
  const stream = client.generate({ ...good, constraint, maxTokens: 1000, minTokens: 500 });
  for (let i = 0; i < 5; i++) await stream.next();
  await stream.return(undefined);
  await eventually("nothing is held", async () => (await heldCount(client)) === 0);
  const [, , , choice] = kinds;
  const { choices } = await client.generateOnce({ ...good, constraint: choice?.[1] ?? {} });
  assert.ok(choices.every(({ text }) => choice?.[2](text)));
});

test("min_tokens beyond the end of the grammar: the grammar's end wins, and the answer is whole", async () => {
  const constraint: Constraint = { kind: { case: "choice", value: { texts: ["yes"] } } };
  const input = { ...good, constraint, minTokens: 50 };
  const [one, two] = await Promise.all(served.map((each) => each.client.generateOnce(input)));
  for (const { text, finished } of one?.choices ?? [])
    assert.deepEqual([text, finished?.reason], ["yes", FinishReason.STOP]);
  assert.equal(one?.choices.length, 2);
  assert.ok(one !== undefined && two !== undefined);
  assert.deepEqual(essence(one), essence(two));
  // Where more may come it does.
  const open: Constraint = { kind: { case: "regex", value: "a+" } };
  const longer = await client.generateOnce({ ...good, n: 1, constraint: open, minTokens: 20 });
  const tokens = longer.choices[0]?.tokenIds ?? [];
  assert.ok(tokens.length >= 20, `${tokens.length} tokens`);
});
