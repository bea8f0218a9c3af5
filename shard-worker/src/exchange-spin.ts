/**
 * The exchange thread polls for a bounded time after a frame instead of sleeping, and so does an engine that waits for
 * a peer. Where each thread has a core of its own, a round trip of 1 KiB over bare grpc-js between two processes takes
 * 18 µs instead of 61 (64 KiB: 75 instead of 170). Where it has not, the polling takes the core from the engine that
 * should answer: two ranks on two cores take 1.2 to 1.8 times as long. So it is on only where there are two cores for
 * each rank of this host: one computes, one polls. `make bench` measures the ratio (exchange.1KiB.spin_ratio).
 */

export const SPIN_US = 100;

/** Microseconds to poll after a frame; 0: not at all. Peers are host:port by rank, `asked` goes before all. */
export function chooseSpinUs(
  asked: number | undefined,
  group: { peers: readonly string[]; rank: number; cores: number },
): number {
  if (asked !== undefined) return asked;
  const hostOf = (address: string | undefined) => address?.slice(0, address.lastIndexOf(":"));
  const own = hostOf(group.peers[group.rank]);
  const here = group.peers.filter((peer) => hostOf(peer) === own).length;
  return group.cores >= 2 * here ? SPIN_US : 0;
}

export class Spin {
  private untilMs = 0;
  private turning = false;

  constructor(private readonly us: number) {}

  /** A frame went out or came in: the next one is near. */
  touch(): void {
    if (this.us === 0) return;
    this.untilMs = performance.now() + this.us / 1e3;
    if (this.turning) return;
    this.turning = true;
    setImmediate(this.turn);
  }

  /** A pending immediate keeps the event loop from sleeping in its poll. */
  private readonly turn = (): void => {
    this.turning = performance.now() < this.untilMs;
    if (this.turning) setImmediate(this.turn);
  };
}
