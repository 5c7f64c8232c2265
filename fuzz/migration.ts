/**
 * A hostile guest while it is migrated: what the host asks it, dirty log, records and the oracle's
 * questions, is answered with anything that the messages allow, and its driver hints what it likes.
 */
import { verifyArrival } from '../host/evaluation/arrival.ts';
import { Evaluator } from '../host/evaluation/evaluator.ts';
import { InPlace } from '../host/migration/in-place.ts';
import { Migration } from '../host/migration/migration.ts';
import {
  DIRTY_LOG_POLICIES,
  HINT_REMEDIES,
  MESSAGES,
  type Message,
  type MigrateParams,
} from '../protocol/index.ts';
import { MIB } from '../shared/index.ts';
import { availOf, type Chain, fieldsOf, u32sOf } from './avail.ts';
import { ANY, endOf, judge, type Kind, type Outcome, type Session, type Verdict } from './case.ts';
import type { Draw } from './draw.ts';
import { HostMachine, RAM_PAGES } from './host-machine.ts';
import type { Raw } from './raw.ts';
import { anyMessage, number, right } from './values.ts';

const PAGE = 4096;
const BITMAP_BYTES = RAM_PAGES / 8;
const ENDED: readonly Outcome[] = ['ended'];

/** A wrong answer to one kind of question; the rest is answered honestly. */
interface Lie {
  readonly to: Message['name'];
  readonly answer: (draw: Draw) => readonly Raw[];
  readonly allowed: readonly Outcome[];
}

function lie(to: Message['name'], answer: Lie['answer'], allowed = ENDED): Lie {
  return { to, answer, allowed };
}

function wrongLength(draw: Draw, right: number): Uint8Array {
  return new Uint8Array(draw.pick([right + 4, 0, 1, right - 1, 4 * right]));
}

const LIES: Readonly<Record<string, Lie | null>> = {
  'nothing wrong': null,
  'dirty log: of a wrong length': lie('getDirtyLog', (draw) => [
    [MESSAGES.dirtyLog.id, wrongLength(draw, BITMAP_BYTES)],
  ]),
  'dirty log: always full': lie(
    'getDirtyLog',
    () => [[MESSAGES.dirtyLog.id, new Uint8Array(BITMAP_BYTES).fill(0xff)]],
    ANY,
  ),
  'dirty log: any': lie(
    'getDirtyLog',
    (draw) => [[MESSAGES.dirtyLog.id, draw.bytes(BITMAP_BYTES)]],
    ANY,
  ),
  'records: of a wrong length': lie('read', (draw) => [
    [MESSAGES.records.id, draw.bytes(draw.pick([1, 3, 5, 7]))],
  ]),
  'free set: of a wrong length': lie('getFreeSet', (draw) => [
    [MESSAGES.freeSet.id, wrongLength(draw, BITMAP_BYTES)],
  ]),
  'no answer': lie('getFreeSet', () => []),
  'another answer': lie('read', (draw) => [[MESSAGES.freeCounts.id, draw.bytes(8)]]),
  'statistics: any': lie(
    'getStatistics',
    (draw) => [
      [
        MESSAGES.statistics.id,
        draw.pick<Raw>([
          [],
          ['__proto__', 1, 'constructor', 2],
          ['lock_holds', -1, 'lock_hold_ns_total', 1e308],
          right(draw, 'counters'),
        ]),
      ],
    ],
    ANY,
  ),
  'erased: pages that there are not': lie('getErased', (draw) => [
    [MESSAGES.erased.id, u32sOf(draw.pick([RAM_PAGES, 0xffff_ffff, 2 ** 31]))],
  ]),
  'erased: any': lie(
    'getErased',
    (draw) => [
      [
        MESSAGES.erased.id,
        draw.pick([u32sOf(1, 2, 3), u32sOf(3, 3, 3), new Uint8Array(5), new Uint8Array(64)]),
      ],
    ],
    ANY,
  ),
  'history: any lines': lie(
    'getHistory',
    (draw) => [[MESSAGES.history.id, right(draw, 'lines')]],
    ANY,
  ),
};
/** A guest that never becomes clean is given up after ten minutes of virtual time: it relents here. */
const LIES_MAX = 6;
const LABELS = Object.keys(LIES);

class MigrationSession implements Session {
  #machine: HostMachine | null = null;

  get trace(): readonly string[] {
    return this.#machine?.guest.trace.slice(-40) ?? [];
  }

  async next(draw: Draw): Promise<Verdict> {
    const machine = new HostMachine({
      freePageHint: true,
      discardHints: draw.chance(1, 4),
      ringReset: draw.chance(1, 2),
    });
    this.#machine = machine;
    const { guest, vmm } = machine;
    await machine.reach('live', draw);
    guest.begin();
    const label = draw.pick(LABELS);
    const lies = LIES[label] ?? null;
    let told = 0;
    guest.onQuestion = (message) => {
      if (lies === null || message.name !== lies.to || told >= LIES_MAX) return null;
      told++;
      return lies.answer(draw);
    };
    guest.onRun = () => (draw.chance(1, 4) ? this.#drivers(draw, machine) : []);
    const params: MigrateParams = {
      bandwidthBytesPerS: draw.pick([200, 50, 4000]) * MIB,
      downtimeLimitMs: draw.pick([300, 1, 0]),
      dirtyLog: draw.pick(DIRTY_LOG_POLICIES),
      hintRemedy: draw.pick(HINT_REMEDIES),
      clearBitmapShift: draw.pick([6, 18, 31]),
    };
    let outcome: Outcome;
    try {
      const evaluator = new Evaluator(vmm, () => {});
      await evaluator.begin();
      const target = await InPlace.open(vmm, { recordSizeBytes: 4, ramPages: RAM_PAGES, vcpus: 1 });
      const migration = new Migration(vmm, params, target, evaluator);
      const figures = await migration.run();
      await evaluator.report(migration.precopy, figures);
      if (figures.status === 'completed') await verifyArrival(vmm, target.incoming.memory);
      outcome = machine.device.protocolViolations > 0 ? 'counted' : 'served';
    } catch (error) {
      endOf(error);
      outcome = 'ended';
    }
    return judge(label, outcome, told > 0 ? (lies?.allowed ?? ANY) : ANY);
  }

  close(): null {
    return null;
  }

  /** What its driver does meanwhile: ids, blocks, resets, or nonsense. */
  #drivers(draw: Draw, { device, indices, guest, vmm }: HostMachine): readonly Raw[] {
    const queue = indices.free_page_vq ?? 0;
    const some = (parts: Omit<Chain, 'head' | 'atNs'>) =>
      availOf(fieldsOf(queue, [{ head: draw.below(16), atNs: vmm.now, ...parts }]));
    guest.received = [];
    switch (draw.below(6)) {
      case 0:
        return [some({ out: u32sOf(device.hintCmdId) })];
      case 1:
        return [some({ out: u32sOf(draw.pick([0, 1, 2, 0xffff_ffff])) })];
      case 2: {
        const order = draw.below(11);
        const pfn = draw.below(RAM_PAGES >> order) << order;
        return [some({ in: [[pfn * PAGE, PAGE << order]] })];
      }
      case 3:
        return [[MESSAGES.setStatus.id, draw.pick([0, 15, 0x8f])]];
      case 4:
        return [[MESSAGES.setConfig.id, 4, u32sOf(number(draw, RAM_PAGES))]];
      default:
        return [anyMessage(draw, 'avail')];
    }
  }
}

export const MIGRATION: Kind = {
  name: 'migration',
  direction: 'guest-to-host',
  about: 'whole migrations of a guest that lies to its host',
  weight: 1,
  casesPerSession: 8,
  open: () => new MigrationSession(),
};
