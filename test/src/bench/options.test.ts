import assert from "node:assert/strict";
import { test } from "node:test";
import { helpText, parseWanted } from "./options.js";

const NAMES = { groups: ["kernels", "exchange", "tokens"], models: ["tiny", "0.5b"] };

test("parseWanted: everything by default; what is named, in the order of a run", () => {
  const all = { groups: NAMES.groups, models: NAMES.models, rounds: 3, markdown: false };
  assert.deepEqual(parseWanted([], NAMES), all);
  const some = parseWanted(["tokens", "--rounds", "1", "kernels", "--models", "0.5b"], NAMES);
  assert.deepEqual(some, { ...all, groups: ["kernels", "tokens"], models: ["0.5b"], rounds: 1 });
});

test("parseWanted: an unknown group, model, option or number of rounds is refused by name", () => {
  const refused: [string[], RegExp][] = [
    [["kernel"], /unknown group: kernel; there are kernels, exchange, tokens/],
    [["--models", "tiny,7b"], /unknown model: 7b; there are tiny, 0\.5b/],
    [["--rounds", "0"], /--rounds 0: must be 1…100/],
    [["--rounds", "many"], /--rounds many/],
    [["--round", "1"], /--round/],
  ];
  for (const [args, message] of refused) assert.throws(() => parseWanted(args, NAMES), message);
});

test("help: names every group and model; asked for, nothing is run", () => {
  assert.equal(parseWanted(["--help"], NAMES), undefined);
  for (const name of [...NAMES.groups, ...NAMES.models]) assert.ok(helpText(NAMES).includes(name));
});
