import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { openModel, rankProgram } from "@tessera/model";
import { opNames } from "./op-names.js";

const models = fileURLToPath(new URL("../../../models/", import.meta.url));

async function programOf(name: string) {
  const { config } = await openModel(`${models}${name}`);
  return { config, program: rankProgram(config, { rank: 0, size: 1 }) };
}

test("opNames: every op and collective of a program has a name, those of a layer its number", async () => {
  const { config, program } = await programOf("nvlm-d-tiny");
  const names = opNames(program.step);
  assert.deepEqual(
    names.map((segment) => segment.length),
    program.step.segments.map(({ ops, collective }) => ops.length + (collective === null ? 0 : 1)),
  );
  const all = names.flat();
  for (const linear of ["qkv", "o_proj", "gate_up", "down_proj"])
    assert.deepEqual(
      all.filter(({ name }) => name === `linear ${linear}`).map(({ layer }) => layer),
      Array.from({ length: config.decoder.layers }, (_, layer) => layer),
    );
  assert.deepEqual(
    all.filter(({ name }) => name === "attention").map(({ layer }) => layer),
    Array.from({ length: config.decoder.layers }, (_, layer) => layer),
  );
  assert.equal(all.filter(({ name }) => name === "linear lm_head").length, 1);
  assert.ok(all.some(({ name, layer }) => name === "linear lm_head" && layer === undefined));
  assert.ok(all.some(({ name }) => name === "all_reduce_add"));
});

test("opNames: linears of the encoder and of cross-attention have names without their place", async () => {
  const { program } = await programOf("nvlm-x-tiny");
  const linears = (names: ReturnType<typeof opNames>) =>
    new Set(
      names
        .flat()
        .map(({ name }) => name)
        .filter((name) => name.startsWith("linear ")),
    );
  const encode = linears(opNames(program.encode));
  assert.ok(
    ["linear patch_embedding", "linear fc1", "linear fc2"].every((name) => encode.has(name)),
  );
  assert.ok([...encode].every((name) => !name.includes("weight") && !name.includes("layers")));
  const step = linears(opNames(program.step));
  assert.ok(step.has("linear cross.q") && step.has("linear cross.o"));
  assert.ok(opNames(program.stream).flat().length > 0);
});
