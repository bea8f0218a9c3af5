import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SharedStore, type Entry } from "./shared-store.js";

function storeOf(capacity: number) {
  const gone: string[] = [];
  const store = new SharedStore<string>(capacity, ({ key }) => gone.push(key));
  const wanted = (key: string, size = 1) => ({ key, size, make: () => key.toUpperCase() });
  const hold = (...keys: string[]) => {
    const entries = store.hold(keys.map((key) => wanted(key)));
    for (const entry of entries) entry.worthKeeping = true;
    return entries;
  };
  return { store, gone, wanted, hold };
}

test("store: two holders of a key share its value, which is kept when both have left", () => {
  const { store, hold } = storeOf(4);
  const [[first], [second]] = [hold("a"), hold("a")];
  assert.equal(first, second);
  assert.ok(first !== undefined);
  store.leave(first);
  assert.deepEqual([store.heldSize, store.idleSize], [1, 0]);
  store.leave(first);
  assert.deepEqual([store.heldSize, store.idleSize], [0, 1]);
  assert.equal(hold("a")[0], first);
});

test("store: what is not worth keeping goes with its last holder", () => {
  const { store, gone, wanted } = storeOf(4);
  const [entry] = store.hold([wanted("a")]);
  assert.ok(entry !== undefined);
  store.leave(entry);
  assert.deepEqual([gone, store.get("a"), store.idleSize], [["a"], undefined, 0]);
});

test("store: for room the one left longest ago goes first, never one that is held or asked for", () => {
  const { store, gone, hold } = storeOf(3);
  const [a, b, c] = [hold("a"), hold("b"), hold("c")].flat();
  for (const entry of [b, a, c]) store.leave(entry ?? assert.fail());
  hold("b", "d");
  assert.deepEqual(gone, ["a"]);
  hold("e");
  assert.deepEqual([gone, store.heldSize, store.idleSize], [["a", "c"], 3, 0]);
});

test("store: fits says whether all fit beside what is held; idle ones count as room", () => {
  const { store, wanted, hold } = storeOf(3);
  const [a] = hold("a");
  hold("b");
  assert.ok(store.fits([wanted("a"), wanted("b"), wanted("c")]));
  assert.ok(!store.fits([wanted("c", 2)]));
  store.leave(a ?? assert.fail());
  assert.ok(store.fits([wanted("c", 2)]));
  assert.ok(!store.fits([wanted("a"), wanted("c", 2)]));
});

const steps = fc.array(
  fc.oneof(
    fc.record({ hold: fc.uniqueArray(fc.integer({ min: 0, max: 9 }), { maxLength: 4 }) }),
    fc.record({ leave: fc.nat(20) }),
  ),
  { maxLength: 60 },
);

test("store: sizes add up, the capacity holds, and a key has one entry, whatever is held and left", () => {
  fc.assert(
    fc.property(steps, (list) => {
      const { store, wanted } = storeOf(8);
      const size = (key: number) => 1 + (key % 3);
      const held: Entry<string>[] = [];
      for (const step of list) {
        if ("hold" in step) {
          const all = step.hold.map((key) => wanted(String(key), size(key)));
          if (!store.fits(all)) continue;
          const entries = store.hold(all);
          assert.deepEqual(
            entries.map(({ key }) => key),
            step.hold.map(String),
          );
          for (const entry of entries) entry.worthKeeping = Number(entry.key) < 7;
          held.push(...entries);
        } else if (held.length > 0) {
          store.leave(held.splice(step.leave % held.length, 1)[0] ?? assert.fail());
        }
        const distinct = [...new Set(held)];
        const sum = (entries: Iterable<Entry<string>>) =>
          [...entries].reduce((total, entry) => total + entry.size, 0);
        assert.equal(store.heldSize, sum(distinct));
        assert.equal(store.heldSize + store.idleSize, sum(store.all()));
        assert.ok(store.heldSize + store.idleSize <= 8);
        for (const entry of distinct) assert.equal(store.get(entry.key), entry);
        store.audit(held);
        const [some] = held;
        if (some !== undefined)
          assert.throws(() => store.audit(held.slice(1)), new RegExp(`holders of ${some.key}`));
      }
    }),
  );
});
