/** Rings that make no sense: the device says so and needs a reset (virtio 1.4 §2.1.2, §2.7, §2.8). */
import { describe, expect } from 'vitest';
import type { OfferedFeatures } from '../../peers/conformance-machine.ts';
import { Desc, DescFlag, PackedDesc, PackedDescFlag } from '../../protocol/index.ts';
import { assert } from '../../shared/index.ts';
import { type StartMachine, suiteOf } from './fixture.ts';
import { le32s, NEEDS_RESET, type Puppet } from './puppet.ts';

/** Spoils the ring around a chain of this head that is available and was not kicked yet. */
type Spoil = (ring: Ring, head: number) => void;

interface Ring {
  readonly size: number;
  set(area: 'desc' | 'driver', offset: number, bytes: 2 | 4, value: number): void;
}

const RUNAWAY = 'an index that runs ahead of the ring';

const SPLIT: Readonly<Record<string, Spoil>> = {
  'a head outside the ring': (ring) => ring.set('driver', 4, 2, 0xffff),
  [RUNAWAY]: (ring) => ring.set('driver', 2, 2, ring.size + 1),
  'a chain that is a loop': (ring, head) => {
    setFlags(ring, head, DescFlag.NEXT);
    ring.set('desc', head * Desc.sizeBytes + Desc.offsets.next, 2, head);
  },
  'a chain that leaves the ring': (ring, head) => {
    setFlags(ring, head, DescFlag.NEXT);
    ring.set('desc', head * Desc.sizeBytes + Desc.offsets.next, 2, ring.size);
  },
  'a buffer of no bytes': (ring, head) =>
    ring.set('desc', head * Desc.sizeBytes + Desc.offsets.len, 4, 0),
  'a readable buffer behind a writable one': (ring, head) =>
    setFlags(ring, head, DescFlag.WRITE | DescFlag.NEXT),
  'an indirect table of odd length': (ring, head) => {
    setFlags(ring, head, DescFlag.INDIRECT);
    ring.set('desc', head * Desc.sizeBytes + Desc.offsets.len, 4, Desc.sizeBytes + 1);
  },
};

const PACKED: Readonly<Record<string, Spoil>> = {
  'a buffer of no bytes': (ring) => ring.set('desc', PackedDesc.offsets.len, 4, 0),
  'an indirect table of odd length': (ring) => {
    const { flags } = PackedDesc.offsets;
    ring.set('desc', flags, 2, DescFlag.INDIRECT | PackedDescFlag.AVAIL);
    ring.set('desc', PackedDesc.offsets.len, 4, PackedDesc.sizeBytes + 1);
  },
};

export function brokenRingTests(start: StartMachine): void {
  const { it } = suiteOf(start);
  const layouts = [
    { layout: 'split', ringPacked: false, spoils: SPLIT },
    { layout: 'packed', ringPacked: true, spoils: PACKED },
  ];
  for (const { layout, ringPacked, spoils } of layouts) {
    describe(`a ${layout} ring with nonsense in it`, () => {
      const offers: OfferedFeatures = { ringPacked, indirectDesc: true };
      const options = { offers, queueSize: 16 };
      for (const [what, spoil] of Object.entries(spoils)) {
        // spec: 2.1.2-device-2, 2.1.2-device-3
        it(`needs a reset: ${what}`, options, async ({ machine, puppet, run }) => {
          const before = machine.interrupts.config;
          const head = puppet.add('inflateq', { out: [le32s([1])] });
          spoil(ringOf(puppet), head);
          await run(() => puppet.kick('inflateq'));
          await machine.settle();
          const breaks = what !== RUNAWAY || machine.traits.get('runawayIndexBreaks');
          const status = await run(() => machine.transport.getStatus());
          expect(status & NEEDS_RESET).toBe(breaks ? NEEDS_RESET : 0);
          if (!breaks) return;
          expect(machine.interrupts.config).toBe(before + 1);
          expect(puppet.queue('inflateq').getUsed()).toBe(-1);
          await run(() => puppet.boot(options));
          expect(await run(() => puppet.tell('inflateq', [3]))).toBe(0);
        });
      }
    });
  }
}

function setFlags(ring: Ring, head: number, flags: number): void {
  ring.set('desc', head * Desc.sizeBytes + Desc.offsets.flags, 2, flags);
}

function ringOf(puppet: Puppet): Ring {
  const { areas, size } = puppet.queue('inflateq');
  return {
    size,
    set(area, offset, bytes, value) {
      const gpa = (area === 'desc' ? areas.descGpa : areas.driverGpa) + offset;
      const written = puppet.machine.system.ram.writeBytes(gpa, le32s([value]).subarray(0, bytes));
      assert(written, 'a ring lies in byte-backed memory');
    },
  };
}
