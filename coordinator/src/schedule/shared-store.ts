/**
 * Things by key that several holders share, of a bounded size in all. What nobody holds any more is kept as long as its
 * room is not needed: the one left longest ago goes first. Pure.
 */
import assert from "node:assert/strict";

export interface Entry<T> {
  readonly key: string;
  /** In units of the store's capacity. */
  readonly size: number;
  readonly value: T;
  holders: number;
  /** Whether it is kept when its last holder leaves. */
  worthKeeping: boolean;
}

export interface Wanted<T> {
  key: string;
  size: number;
  /** Called when nothing is there under the key. */
  make: () => T;
}

export class SharedStore<T> {
  private readonly entries = new Map<string, Entry<T>>();
  /** The one left longest ago first. */
  private readonly idle = new Map<string, Entry<T>>();
  private idleUnits = 0;
  private heldUnits = 0;

  /** `onGone` is told of every entry that leaves the store. */
  constructor(
    readonly capacity: number,
    private readonly onGone: (entry: Entry<T>) => void,
  ) {}

  get heldSize(): number {
    return this.heldUnits;
  }
  get idleSize(): number {
    return this.idleUnits;
  }
  get(key: string): Entry<T> | undefined {
    return this.entries.get(key);
  }
  all(): IterableIterator<Entry<T>> {
    return this.entries.values();
  }

  /** What holding these would add to what is held. */
  private added(wanted: Wanted<T>[]): number {
    const held = (key: string) => (this.entries.get(key)?.holders ?? 0) > 0;
    return wanted.reduce((sum, { key, size }) => sum + (held(key) ? 0 : size), 0);
  }

  /** Whether `hold` would find room. */
  fits(wanted: Wanted<T>[]): boolean {
    return this.heldUnits + this.added(wanted) <= this.capacity;
  }

  /** Holds all of them, of different keys. To be asked for `fits` before. */
  hold(wanted: Wanted<T>[]): Entry<T>[] {
    assert(this.fits(wanted), `${wanted.length} entries beside ${this.heldUnits} held`);
    const found = wanted.map(({ key }) => this.entries.get(key));
    for (const entry of found) if (entry !== undefined) this.take(entry);
    const missing = wanted.filter((_, i) => found[i] === undefined);
    this.makeRoom(missing.reduce((sum, { size }) => sum + size, 0));
    return wanted.map((one, i) => found[i] ?? this.add(one));
  }

  private take(entry: Entry<T>): void {
    if (entry.holders++ > 0) return;
    this.idle.delete(entry.key);
    this.idleUnits -= entry.size;
    this.heldUnits += entry.size;
  }

  private add({ key, size, make }: Wanted<T>): Entry<T> {
    const entry = { key, size, value: make(), holders: 1, worthKeeping: false };
    this.entries.set(key, entry);
    this.heldUnits += size;
    return entry;
  }

  private makeRoom(size: number): void {
    for (const entry of this.idle.values()) {
      if (this.heldUnits + this.idleUnits + size <= this.capacity) return;
      this.idle.delete(entry.key);
      this.idleUnits -= entry.size;
      this.remove(entry);
    }
  }

  private remove(entry: Entry<T>): void {
    this.entries.delete(entry.key);
    this.onGone(entry);
  }

  /** One holder leaves. */
  leave(entry: Entry<T>): void {
    assert(entry.holders > 0, `${entry.key} is not held`);
    if (--entry.holders > 0) return;
    this.heldUnits -= entry.size;
    if (!entry.worthKeeping) return this.remove(entry);
    this.idle.set(entry.key, entry);
    this.idleUnits += entry.size;
  }

  /** @throws AssertionError when `held`, the entries of all holders, is not what the store has noted. */
  audit(held: Iterable<Entry<T>>): void {
    const counted = new Map<Entry<T>, number>();
    for (const entry of held) counted.set(entry, (counted.get(entry) ?? 0) + 1);
    let [heldUnits, idleUnits] = [0, 0];
    for (const entry of this.entries.values()) {
      const { key, size, holders } = entry;
      assert.equal(holders, counted.get(entry) ?? 0, `holders of ${key}`);
      assert.equal(this.idle.has(key), holders === 0, `${key} is idle without a holder`);
      counted.delete(entry);
      if (holders > 0) heldUnits += size;
      else idleUnits += size;
    }
    assert.equal(counted.size, 0, "entries are held that have left the store");
    assert.deepEqual([this.heldUnits, this.idleUnits], [heldUnits, idleUnits], "held and idle");
    assert(heldUnits + idleUnits <= this.capacity, "entries beside the store's capacity");
  }
}
