import { describe, expect, test } from 'vitest';
import {
  type HintingStrategy,
  HintOutcome,
  type HintRound,
} from '../../../../guest/balloon/hinting.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { BalloonFeature, featureMask, type Message, toUint32 } from '../../../../protocol/index.ts';
import { DriverHarness, type HarnessOptions } from '../../../support/driver-harness.ts';

const MS = 1_000_000;
const SECOND = 1_000 * MS;

/** Hints `count` one-page blocks from `first`, in batches, and records what it was told. */
class BatchStrategy implements HintingStrategy {
  readonly name = 'iterate';
  heldPages = 0;
  readonly holds = false;
  readonly refills = false;
  releases = 0;
  readonly queued: number[] = [];
  readonly #count: number;
  readonly #order: number;

  constructor(count: number, order = 0) {
    this.#count = count;
    this.#order = order;
  }

  *run(round: HintRound): Kthread {
    const pfns = Uint32Array.from({ length: this.#count }, (_, i) => (i + 1) << this.#order);
    const orders = new Uint8Array(this.#count).fill(this.#order);
    this.queued.push(yield* round.hintMany(pfns, orders, this.#count, round.kernel.now));
  }

  release(): void {
    this.releases++;
  }
}

/** Hints single blocks, `pauseNs` apart, until the round ends. */
class EndlessStrategy implements HintingStrategy {
  readonly name = 'alloc';
  readonly heldPages = 0;
  readonly holds = false;
  readonly refills = false;
  readonly outcomes = [0, 0, 0];
  readonly #pauseNs: number;

  constructor(pauseNs: number) {
    this.#pauseNs = pauseNs;
  }

  *run(round: HintRound): Kthread {
    for (;;) {
      const outcome = yield* round.hint(8, 1, round.kernel.now);
      this.outcomes[outcome]!++;
      if (outcome === HintOutcome.ENDED) return;
      yield { kind: 'cpu', ns: this.#pauseNs };
    }
  }

  release(): void {}
}

function boot(strategy: HintingStrategy, options: HarnessOptions = {}): DriverHarness {
  return new DriverHarness({ strategy, ...options }).boot();
}

/** The command ids that the driver sent. */
function commands(harness: DriverHarness): number[] {
  const sent = harness.trace.filter((m): m is Message<'avail'> => m.name === 'avail');
  return sent.flatMap((m) => (m.queue === 2 ? [...toUint32(m.out)!] : []));
}

describe('a round', () => {
  // spec: 5.5.6.5.1-driver-1, 5.5.6.5.1-driver-2, 5.5.6.5.1-driver-3, 5.5.6.5.1-driver-4, 5.5.6.5.1-driver-6
  test('is id, blocks, STOP, and every block reaches the host once, in order', () => {
    const strategy = new BatchStrategy(5000);
    const harness = boot(strategy);
    harness.device.hintStart();
    harness.runFor(SECOND);
    expect(commands(harness)).toEqual([0x8000_0001, 0]);
    expect(strategy.queued).toEqual([5000]);
    expect(harness.hints.map((hint) => hint.firstPfn)).toEqual(
      Array.from({ length: 5000 }, (_, i) => i + 1),
    );
    expect(harness.hints.every((hint) => hint.cmdId === 0x8000_0001)).toBe(true);
    expect(harness.device.metrics.hints_late).toBe(0);
    expect(harness.device.protocolViolations).toBe(0);
  });

  test('carries the size of each block', () => {
    const harness = boot(new BatchStrategy(3, 9));
    harness.device.hintStart();
    harness.runFor(SECOND);
    expect(harness.hints.map((hint) => hint.pageCount)).toEqual([512, 512, 512]);
  });

  // spec: 5.5.6.5.1-driver-10
  test('STOP, a new id, STOP, DONE: two rounds and one release', () => {
    const strategy = new BatchStrategy(100);
    const harness = boot(strategy);
    for (const act of ['hintStart', 'hintStop', 'hintStart', 'hintStop', 'hintDone'] as const) {
      harness.device[act]();
      harness.runFor(SECOND);
      expect(strategy.releases).toBe(act === 'hintDone' ? 1 : 0);
    }
    expect(commands(harness)).toEqual([0x8000_0001, 0, 0x8000_0002, 0]);
    expect(harness.device.metrics.hint_rounds).toBe(2);
    expect(harness.hints).toHaveLength(200);
  });

  test('the work runs configWorkNs after the config interrupt', () => {
    const harness = boot(new BatchStrategy(1));
    const at = harness.now;
    harness.device.hintStart();
    harness.runFor(SECOND);
    const { configWorkNs } = harness.kernel.costs;
    expect(harness.hints[0]!.queuedAtNs).toBeGreaterThanOrEqual(at + configWorkNs);
    expect(harness.hints[0]!.queuedAtNs).toBeLessThan(at + 2 * configWorkNs);
  });

  // spec: 5.5.6.5.1-driver-5
  test.each([
    { id: 'STOP', end: 'hintStop' as const },
    { id: 'DONE', end: 'hintDone' as const },
    { id: 'another id', end: 'hintStart' as const },
  ])('breaks off when the host says $id', ({ end }) => {
    const strategy = new EndlessStrategy(50_000);
    const harness = boot(strategy);
    harness.device.hintStart();
    harness.runFor(10 * MS);
    const before = harness.device.metrics.hints_accepted;
    expect(before).toBeGreaterThan(10);
    harness.device[end]();
    harness.runFor(2 * MS);
    expect(strategy.outcomes[HintOutcome.ENDED]).toBe(1);
    expect(commands(harness)).toEqual([0x8000_0001, 0]);
    expect(harness.hints.filter((hint) => hint.cmdId === 0x8000_0001)).toHaveLength(before);
    // What was under way when the host ended the round arrives late: acknowledged, not accepted.
    expect(harness.device.metrics.hints_late).toBeLessThanOrEqual(3);
    expect(harness.driver.hinting!.counters.hint_rounds_broken_off).toBe(1);
  });

  test('after another id, a new round follows', () => {
    const harness = boot(new EndlessStrategy(50_000));
    harness.device.hintStart();
    harness.runFor(10 * MS);
    harness.device.hintStart();
    harness.runFor(10 * MS);
    expect(commands(harness)).toEqual([0x8000_0001, 0, 0x8000_0002]);
  });
});

describe('config interrupts that do not concern hinting', () => {
  // spec: 5.5.6.5.1-driver-3
  test('the last id again is ignored', () => {
    const strategy = new BatchStrategy(10);
    const harness = boot(strategy, { device: { quirks: new Set() } });
    harness.stalled = true;
    harness.device.hintStart();
    harness.runFor(SECOND);
    expect(strategy.queued).toEqual([10]);
    harness.device.setTarget(1);
    harness.runFor(SECOND);
    expect(strategy.queued).toEqual([10]);
  });

  test.each([
    { startReadsAs: 'stop', quirks: ['start-reads-as-stop'] as const, ended: 1 },
    { startReadsAs: 'id', quirks: [], ended: 0 },
  ])('a new target in a round ends it if START reads as $startReadsAs', (one) => {
    const strategy = new EndlessStrategy(50_000);
    const harness = boot(strategy, { device: { quirks: new Set(one.quirks) } });
    harness.device.hintStart();
    harness.runFor(10 * MS);
    harness.device.setTarget(100);
    harness.runFor(10 * MS);
    expect(strategy.outcomes[HintOutcome.ENDED]).toBe(one.ended);
  });
});

describe('a host that does not drain the queue', () => {
  test('one entry stays reserved for the command id', () => {
    const strategy = new EndlessStrategy(1000);
    const harness = boot(strategy);
    harness.device.hintStart();
    harness.runFor(5 * MS + 100_000);
    harness.stalled = true;
    harness.runFor(10 * MS);
    expect(strategy.outcomes[HintOutcome.FULL]).toBeGreaterThan(0);
    expect(harness.driver.hinting!.freeEntries()).toBe(0);
    // The stop id takes the reserved entry and does not wait.
    harness.device.hintStop();
    harness.runFor(MS);
    expect(strategy.outcomes[HintOutcome.ENDED]).toBe(1);
    harness.stalled = false;
    harness.runFor(MS);
    expect(commands(harness)).toEqual([0x8000_0001, 0]);
  });

  test('hintMany waits for space and goes on when it comes', () => {
    const strategy = new BatchStrategy(3000);
    const harness = boot(strategy);
    harness.stalled = true;
    harness.device.hintStart();
    harness.runFor(SECOND);
    expect(strategy.queued).toEqual([]);
    harness.stalled = false;
    harness.runFor(SECOND);
    expect(strategy.queued).toEqual([3000]);
    expect(harness.driver.hinting!.counters.hint_ring_full).toBeGreaterThan(0);
    expect(harness.hints).toHaveLength(3000);
  });

  test('hintMany returns how far it came when the round ends meanwhile', () => {
    const strategy = new BatchStrategy(3000);
    const harness = boot(strategy);
    harness.stalled = true;
    harness.device.hintStart();
    harness.runFor(SECOND);
    harness.device.hintStop();
    harness.runFor(SECOND);
    // The start id and 1022 blocks fill the ring but for the reserved entry.
    expect(strategy.queued).toEqual([1022]);
    harness.stalled = false;
    harness.runFor(SECOND);
    expect(harness.hints).toHaveLength(0);
    expect(harness.device.metrics.hints_late).toBe(1022);
  });
});

test('observers see each block when it is queued and when it was used', () => {
  const hinted: number[][] = [];
  const used: number[][] = [];
  const observer = {
    onHint: (...facts: number[]) => void hinted.push(facts),
    onUsed: (...facts: number[]) => void used.push(facts),
  };
  const harness = boot(new BatchStrategy(1500, 1), { observers: [observer] });
  harness.device.hintStart();
  harness.runFor(SECOND);
  harness.device.hintDone();
  harness.runFor(SECOND);
  expect(hinted).toHaveLength(1500);
  expect(used.map(([pfn]) => pfn)).toEqual(hinted.map(([pfn]) => pfn));
  for (const [, pageCount, recordedAt, queuedAt, cmdId] of hinted) {
    expect(pageCount).toBe(2);
    expect(queuedAt).toBeGreaterThanOrEqual(recordedAt!);
    expect(cmdId).toBe(0x8000_0001);
  }
});

test('used entries that the host invents change nothing', () => {
  const harness = boot(new BatchStrategy(10));
  harness.tamper = (message) =>
    message.name === 'used'
      ? { ...message, heads: new Uint8Array([0xff, 0xff]), written_bytes: new Uint8Array(4) }
      : message;
  harness.device.hintStart();
  harness.runFor(SECOND);
  expect(harness.transport.counters.protocol_violations).toBeGreaterThan(0);
  expect(harness.driver.hinting!.counters.hint_used_blocks).toBe(0);
});

describe('HINT_WAIT_ON_ACK', () => {
  /** Hints one block and waits for it. */
  class AwaitingStrategy extends BatchStrategy {
    readonly waitsOnAck: boolean;
    readonly waited: boolean[] = [];
    usedAtNs = 0;

    constructor(waitsOnAck: boolean) {
      super(1);
      this.waitsOnAck = waitsOnAck;
    }

    override *run(round: HintRound): Kthread {
      yield* super.run(round);
      this.waited.push(round.waitsOnAck);
      yield* round.used();
      this.usedAtNs = round.kernel.now;
    }
  }

  test.each([
    { offered: true, hints: true, wanted: true, negotiated: true },
    { offered: false, hints: true, wanted: true, negotiated: false },
    { offered: true, hints: true, wanted: false, negotiated: false },
    { offered: true, hints: false, wanted: true, negotiated: false },
  ])(
    'is negotiated: $negotiated, when offered: $offered, with hinting: $hints, wanted: $wanted',
    ({ offered, hints, wanted, negotiated }) => {
      const strategy = new AwaitingStrategy(wanted);
      const features = featureMask(BalloonFeature.HINT_WAIT_ON_ACK);
      const harness = boot(strategy, {
        device: { hintWaitOnAck: offered },
        driver: hints ? {} : { features },
      });
      const bit6 = (harness.driver.features >> 6n) & 1n;
      expect(bit6).toBe(negotiated ? 1n : 0n);
      harness.device.hintStart();
      harness.runFor(SECOND);
      expect(strategy.waited).toEqual(hints ? [negotiated] : []);
    },
  );

  test('a block is used when the device says so, also after its round has ended', () => {
    const strategy = new AwaitingStrategy(true);
    const harness = boot(strategy, { device: { hintWaitOnAck: true } });
    harness.stalled = true;
    harness.device.hintStart();
    harness.runFor(SECOND);
    harness.device.hintDone();
    harness.runFor(SECOND);
    expect([strategy.queued, strategy.usedAtNs, strategy.releases]).toEqual([[1], 0, 0]);
    const stalledUntilNs = harness.now;
    harness.stalled = false;
    harness.runFor(SECOND);
    expect(strategy.usedAtNs).toBeGreaterThanOrEqual(stalledUntilNs);
    expect([harness.hints, strategy.releases]).toEqual([[], 1]);
  });
});
