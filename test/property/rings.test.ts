import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Segment } from '../../guest/virtio/queue.ts';
import { Feature } from '../../protocol/index.ts';
import { Errno } from '../../shared/index.ts';
import {
  DATA_GPA,
  DATA_PAGES,
  LAYOUTS,
  type Layout,
  type RigOptions,
  RingRig,
  type TakenChain,
} from '../support/ring-rig.ts';

/** What IndirectTables has. */
const TABLES = 8;
const TABLE_DESCS = 32;

type Step =
  | { kind: 'add'; out: number; in: number }
  | { kind: 'single'; writable: boolean }
  | { kind: 'kick' }
  | { kind: 'device' }
  | { kind: 'use'; pick: number; count: number }
  | { kind: 'get'; count: number }
  | { kind: 'sleep'; count: number }
  | { kind: 'wait' }
  | { kind: 'irq' };

const few = fc.oneof(
  { weight: 9, arbitrary: fc.nat(3) },
  { weight: 1, arbitrary: fc.integer({ min: 4, max: 36 }) },
);

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('add' as const), out: fc.nat(3), in: few }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('single' as const), writable: fc.boolean() }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('kick' as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('device' as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('use' as const), pick: fc.nat(99), count: fc.nat(6) }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('get' as const), count: fc.nat(6) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('sleep' as const), count: fc.nat(6) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('wait' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('irq' as const) }) },
);

interface Made {
  readonly id: number;
  readonly count: number;
  readonly usesTable: boolean;
  readonly expected: Omit<TakenChain, 'head' | 'atNs'>;
}

/** A queue as three lists: available, held by the device, used. */
class Model {
  readonly rig: RingRig;
  readonly #options: RigOptions;
  readonly #available: Made[] = [];
  readonly #held: { made: Made; head: number }[] = [];
  readonly #used: { made: Made; writtenBytes: number }[] = [];
  readonly #out = new Map<number, Made>();
  #kickPending = false;
  #irqPending = false;
  #asleep = false;
  #serial = 0;

  constructor(options: RigOptions) {
    this.#options = options;
    this.rig = new RingRig(options);
  }

  run(step: Step): void {
    // A driver that sleeps does nothing until its interrupt comes; others may wake it by adding.
    switch (step.kind) {
      case 'add':
        this.#add(step.out, step.in);
        break;
      case 'single':
        this.#single(step.writable);
        break;
      case 'kick':
        this.#kick();
        break;
      case 'device':
        if (this.#kickPending) this.#device();
        break;
      case 'use':
        this.#use(step.pick, step.count);
        break;
      case 'get':
        if (!this.#asleep) for (let i = 0; i < step.count; i++) this.#get();
        break;
      case 'sleep':
        this.#sleep(step.count);
        break;
      case 'wait':
        this.#wait();
        break;
      case 'irq':
        this.#irq();
        break;
    }
    this.#check();
  }

  /** Let everything come back, by notifications alone. */
  settle(): void {
    this.#wait();
    while (this.#out.size > 0) {
      this.#kick();
      if (this.#kickPending) this.#device();
      this.#use(0, this.#held.length);
      this.#irq();
      this.#wait();
      this.#check();
    }
    const { queue, ring } = this.rig;
    expect(queue.freeCount).toBe(queue.size);
    expect(queue.getUsed()).toBe(-1);
    expect(queue.badUsedCount).toBe(0);
    expect(ring.broken).toBe(null);
  }

  #has(feature: number): boolean {
    return this.#options.features?.includes(feature) === true;
  }

  #segments(count: number, writable: boolean): Segment[] {
    return Array.from({ length: count }, () => {
      const serial = ++this.#serial;
      if (writable) return { gpa: serial * 0x1_0000_1000, lengthBytes: (serial % 4096) + 1 };
      const at = (serial * 40) % (DATA_PAGES * 4096 - 8);
      const lengthBytes = (serial % 7) + 1;
      for (let i = 0; i < lengthBytes; i++) this.rig.data[at + i] = (serial * 31 + i) & 0xff;
      return { gpa: DATA_GPA + at, lengthBytes };
    });
  }

  #made(id: number, out: Segment[], writable: Segment[], usesTable: boolean): void {
    expect(this.#out.has(id)).toBe(false);
    const bytes = out.flatMap(({ gpa, lengthBytes }) => [
      ...this.rig.data.subarray(gpa - DATA_GPA, gpa - DATA_GPA + lengthBytes),
    ]);
    const made = {
      id,
      count: usesTable ? 1 : out.length + writable.length,
      usesTable,
      expected: { out: bytes, in: writable.map((s) => [s.gpa, s.lengthBytes] as const) },
    };
    this.#out.set(id, made);
    this.#available.push(made);
  }

  #add(outCount: number, inCount: number): void {
    const { queue } = this.rig;
    const count = outCount + inCount;
    const tables = [...this.#out.values()].filter((made) => made.usesTable).length;
    const usesTable =
      this.#has(Feature.RING_INDIRECT_DESC) &&
      count > 1 &&
      count <= Math.min(TABLE_DESCS, queue.size) &&
      tables < TABLES;
    const fits = (usesTable ? 1 : count) <= queue.freeCount;
    const out = this.#segments(outCount, false);
    const writable = this.#segments(inCount, true);
    const id = queue.addChain({ out, in: writable });
    if (count === 0) expect(id).toBe(Errno.EINVAL);
    else if (!fits) expect(id).toBe(Errno.ENOSPC);
    else this.#made(id, out, writable, usesTable);
  }

  #single(writable: boolean): void {
    const { queue } = this.rig;
    const wasFull = queue.freeCount === 0;
    const [segment] = this.#segments(1, writable) as [Segment];
    const id = queue.addSingle(segment.gpa, segment.lengthBytes, writable);
    queue.flushTouched();
    if (wasFull) expect(id).toBe(Errno.ENOSPC);
    else this.#made(id, writable ? [] : [segment], writable ? [segment] : [], false);
  }

  #kick(): void {
    if (this.rig.queue.kickNeeded()) this.#kickPending = true;
    // No kick is lost: what the device has not seen, it will be told of.
    if (this.#available.length > 0) expect(this.#kickPending).toBe(true);
  }

  #device(): void {
    this.#kickPending = false;
    for (const { head, out, in: writable } of this.rig.take()) {
      const made = this.#available.shift();
      expect({ out, in: writable }).toEqual(made?.expected);
      expect(head).toBeLessThan(this.rig.queue.size);
      this.#held.push({ made: made!, head });
    }
    expect(this.#available).toEqual([]);
  }

  #use(pick: number, count: number): void {
    const from = this.#has(Feature.IN_ORDER) ? 0 : pick % (this.#held.length + 1);
    const batch = this.#held.splice(from, count);
    if (batch.length === 0) return;
    const written = batch.map(({ made }) => (made.id % 3 === 0 ? 0 : made.id + 1));
    expect(
      this.rig.complete(
        batch.map(({ head }) => head),
        written,
      ),
    ).toBe(0);
    for (const [i, { made }] of batch.entries()) {
      this.#used.push({ made, writtenBytes: written[i]! });
    }
    if (this.rig.ring.interruptNeeded()) this.#irqPending = true;
  }

  #get(): boolean {
    const { queue } = this.rig;
    const next = this.#used.shift();
    const id = queue.getUsed();
    expect(id).toBe(next?.made.id ?? -1);
    if (!next) return false;
    expect(queue.usedBytes).toBe(next.writtenBytes);
    expect(queue.isOutstanding(id)).toBe(false);
    this.#out.delete(id);
    return true;
  }

  /** Poll without interrupts, then ask for one and sleep, unless something is there already. */
  #sleep(polls: number): void {
    if (this.#asleep) return;
    const { queue } = this.rig;
    queue.disableCallbacks();
    for (let i = 0; i < polls && this.#get(); i++);
    this.#asleep = queue.enableCallbacks();
    // Not before: an interrupt of an earlier buffer may come late.
    this.#irqPending &&= !this.#asleep;
  }

  /** With interrupts enabled all the time: sleep when there is nothing more. */
  #wait(): void {
    if (this.#asleep) return;
    while (this.#get());
    this.#asleep = true;
    this.#irqPending = false;
  }

  #irq(): void {
    if (!this.#irqPending) return;
    this.#irqPending = false;
    this.#asleep = false;
  }

  #check(): void {
    const { queue, ring } = this.rig;
    expect(ring.broken).toBe(null);
    const taken = [...this.#out.values()].reduce((sum, { count }) => sum + count, 0);
    expect(queue.freeCount).toBe(queue.size - taken);
    // No interrupt is lost: who sleeps although something was used is being woken.
    if (this.#asleep && this.#used.length > 0) expect(this.#irqPending).toBe(true);
  }
}

const SIZES: Readonly<Record<Layout, fc.Arbitrary<number>>> = {
  split: fc.constantFrom(1, 2, 4, 8, 32, 64),
  packed: fc.oneof(fc.integer({ min: 1, max: 17 }), fc.constantFrom(33, 64, 100)),
};

type RingFeature = 'RING_INDIRECT_DESC' | 'RING_EVENT_IDX' | 'IN_ORDER';
const RING_OPTIONS: readonly RingFeature[] = ['RING_INDIRECT_DESC', 'RING_EVENT_IDX', 'IN_ORDER'];
const SUBSETS = Array.from({ length: 8 }, (_, set) =>
  RING_OPTIONS.filter((_name, i) => ((set >> i) & 1) === 1),
);

const CASES = LAYOUTS.flatMap((layout) =>
  SUBSETS.map((names) => ({ layout, names, id: [layout, ...names].join(' ') })),
);

describe('a ring against three lists as its model', () => {
  test.each(CASES)(
    '$id: every chain comes back once, whole, with its length; no notification is lost',
    ({ layout, names }) => {
      const features = names.map((name) => Feature[name]);
      fc.assert(
        fc.property(
          SIZES[layout],
          fc.array(step, { maxLength: 300, size: 'max' }),
          (size, steps) => {
            const model = new Model({ layout, size, features });
            for (const one of steps) model.run(one);
            model.settle();
          },
        ),
        { numRuns: 50, seed: 11 },
      );
    },
  );
});
