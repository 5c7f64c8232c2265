/** Configuration space (virtio 1.4 §2.5, §5.5.4): who writes what, and who is told. */
import { describe, expect } from 'vitest';
import type { ConformanceMachine } from '../../peers/conformance-machine.ts';
import { BalloonConfig, BalloonFeature, featureMask } from '../../protocol/index.ts';
import { type StartMachine, suiteOf } from './fixture.ts';
import { ACKNOWLEDGE, DRIVER } from './puppet.ts';

export function configTests(start: StartMachine): void {
  const { test, it } = suiteOf(start);

  describe('num_pages', () => {
    test('is 0 at first, and so is actual', {}, async ({ puppet, run }) => {
      await run(() => puppet.greet());
      expect(await run(() => puppet.read('num_pages'))).toBe(0);
      expect(await run(() => puppet.read('actual'))).toBe(0);
    });

    it('is the target that the host sets, and the driver is told', {}, async (bench) => {
      const { machine, puppet, run } = bench;
      await machine.control.setTarget(100);
      expect(await run(() => puppet.change('num_pages', 0))).toBe(100);
      expect(machine.interrupts.config).toBe(1);
    });

    it('follows the target down again', {}, async ({ machine, puppet, run }) => {
      await machine.control.setTarget(100);
      await run(() => puppet.change('num_pages', 0));
      await machine.control.setTarget(40);
      expect(await run(() => puppet.change('num_pages', 100))).toBe(40);
    });

    // spec: 2.5.2-device-1
    test('a target from before the driver came is there', {}, async ({ machine, puppet, run }) => {
      await machine.control.setTarget(77);
      await run(() => puppet.greet());
      expect(await run(() => puppet.read('num_pages'))).toBe(77);
    });

    test('nobody is told before DRIVER_OK', {}, async ({ machine, puppet, run }) => {
      await run(() => puppet.negotiate());
      await machine.control.setTarget(77);
      await machine.settle();
      expect(machine.interrupts.config).toBe(0);
      expect(await run(() => puppet.read('num_pages'))).toBe(77);
    });

    it('the same target again', {}, async ({ machine, puppet, run }) => {
      await machine.control.setTarget(100);
      await run(() => puppet.change('num_pages', 0));
      const before = machine.interrupts.config;
      await machine.control.setTarget(100);
      await machine.settle();
      const told = machine.interrupts.config > before;
      expect(told).toBe(machine.traits.get('sameTargetIsTold'));
    });

    it('the driver cannot write it', {}, async ({ machine, puppet, run }) => {
      await machine.control.setTarget(100);
      await run(() => puppet.write('num_pages', 5));
      expect(await run(() => puppet.read('num_pages'))).toBe(100);
    });

    it('survives a reset', {}, async ({ machine, puppet, run }) => {
      await machine.control.setTarget(100);
      await run(() => puppet.boot());
      expect(await run(() => puppet.read('num_pages'))).toBe(100);
    });

    it('can be read byte by byte', {}, async ({ machine, run }) => {
      await machine.control.setTarget(0x312);
      const bytes = await run(function* () {
        const found: number[] = [];
        for (let at = 0; at < 4; at++) {
          found.push((yield* machine.transport.readConfig(at, 1))[0]!);
        }
        return found;
      });
      expect(bytes).toEqual([0x12, 0x03, 0, 0]);
    });
  });

  describe('actual', () => {
    it('is what the driver wrote, for both sides', {}, async ({ machine, puppet, run }) => {
      await run(() => puppet.write('actual', 123));
      expect(await run(() => puppet.read('actual'))).toBe(123);
      expect(await machine.control.actualPages()).toBe(123);
    });

    it('more than guest memory', {}, async ({ machine, puppet, run }) => {
      const pages = machine.ramPages + 1000;
      await run(() => puppet.write('actual', pages));
      await machine.settle();
      const kept = (await machine.control.actualPages()) === pages;
      expect(kept).toBe(machine.traits.get('actualMayExceedMemory'));
    });

    it('survives a reset', {}, async ({ machine, puppet, run }) => {
      await run(() => puppet.write('actual', 123));
      await run(() => machine.transport.reset());
      expect(await machine.control.actualPages()).toBe(123);
    });

    it('need not follow the target', {}, async ({ machine, puppet, run }) => {
      await machine.control.setTarget(100);
      await run(() => puppet.write('actual', 60));
      await machine.settle();
      expect(await machine.control.actualPages()).toBe(60);
      expect(await run(() => puppet.read('num_pages'))).toBe(100);
    });
  });

  describe('fields of features', () => {
    const hinting = { offers: { freePageHint: true } };

    it('free_page_hint_cmd_id is 0, STOP, while nothing migrates', hinting, async (bench) => {
      expect(await bench.run(() => bench.puppet.read('free_page_hint_cmd_id'))).toBe(0);
    });

    it('the driver cannot write free_page_hint_cmd_id', hinting, async ({ puppet, run }) => {
      await run(() => puppet.write('free_page_hint_cmd_id', 7));
      expect(await run(() => puppet.read('free_page_hint_cmd_id'))).toBe(0);
    });

    // spec: 2.5.2-device-1
    test('both can be read before FEATURES_OK if they are offered', everything, async (bench) => {
      const { machine, puppet, run } = bench;
      await run(() => machine.transport.setStatus(ACKNOWLEDGE));
      await run(() => machine.transport.setStatus(ACKNOWLEDGE | DRIVER));
      expect(await run(() => puppet.read('free_page_hint_cmd_id'))).toBe(0);
      expect(await run(() => puppet.read('poison_val'))).toBe(0);
    });

    for (const field of ['free_page_hint_cmd_id', 'poison_val'] as const) {
      it(`${field} of a device that does not offer it`, {}, async ({ machine, run }) => {
        const found = await run(() => readField(machine, field));
        const ones = found.length === 4 && found.every((byte) => byte === 0xff);
        expect(ones || found.length === 0).toBe(true);
        expect(ones).toBe(machine.traits.get('absentConfigReadsOnes'));
      });
    }

    it('poison_val is what the driver wrote', {
      ...everything,
      poisonVal: 0xaaaa_aaaa,
    }, async (bench) => {
      expect(await bench.run(() => bench.puppet.read('poison_val'))).toBe(0xaaaa_aaaa);
    });

    it('poison_val is 0 after a reset', {
      ...everything,
      poisonVal: 0xaaaa_aaaa,
    }, async (bench) => {
      const { puppet, run } = bench;
      await run(() => puppet.boot());
      expect(await run(() => puppet.read('poison_val'))).toBe(0);
    });

    it('poison_val after a reset, once another field was written', poisoned, async (bench) => {
      const { machine, puppet, run } = bench;
      await run(() => puppet.boot());
      await run(() => puppet.write('actual', 1));
      const returned = (await run(() => puppet.read('poison_val'))) === 0xaaaa_aaaa;
      expect(returned).toBe(machine.traits.get('poisonReturnsAfterReset'));
    });

    it('poison_val once the driver is ready', { ...everything, poisonVal: 5 }, async (bench) => {
      const { machine, puppet, run } = bench;
      await run(() => puppet.write('poison_val', 6));
      const changed = (await run(() => puppet.read('poison_val'))) === 6;
      expect(changed).toBe(machine.traits.get('poisonWritableAnyTime'));
    });

    const declined = { ...everything, decline: featureMask(BalloonFeature.PAGE_POISON) };
    it(
      'poison_val of a driver that declined it is not taken',
      declined,
      async ({ puppet, run }) => {
        await run(() => puppet.write('poison_val', 6));
        expect(await run(() => puppet.read('poison_val'))).toBe(0);
      },
    );
  });
}

const everything = { offers: { freePageHint: true, pagePoison: true, pageReporting: true } };
const poisoned = { ...everything, poisonVal: 0xaaaa_aaaa };

function readField(machine: ConformanceMachine, field: keyof BalloonConfig) {
  return machine.transport.readConfig(BalloonConfig.offsets[field], 4);
}
