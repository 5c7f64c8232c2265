/** A migration under the eyes of a test: which pages went out, how often, with what content. */
import { expect } from 'vitest';
import type { ConformanceMachine } from '../../peers/conformance-machine.ts';
import type { MigrationLimits } from '../../peers/host-control.ts';
import { MIB, type Pfn } from '../../shared/index.ts';
import type { Bench } from './fixture.ts';
import { le32s, type Puppet } from './puppet.ts';

/** Slow enough that a round of hinting comes before the pages behind the filler. */
const SLOW: MigrationLimits = { bandwidthBytesPerS: 2 * MIB, downtimeLimitMs: 1 };
const FAST: MigrationLimits = { bandwidthBytesPerS: 4096 * MIB, downtimeLimitMs: 300 };
/** Pages that are sent first, for a second. */
const FILLER_ORDER = 9;

export class Migration {
  /** What each page held when it was sent last; 0 for a zero page. */
  readonly content = new Map<Pfn, number>();
  readonly timesSent = new Map<Pfn, number>();
  readonly #machine: ConformanceMachine;

  private constructor(machine: ConformanceMachine) {
    this.#machine = machine;
  }

  static async start(machine: ConformanceMachine, limits = SLOW): Promise<Migration> {
    const migration = new Migration(machine);
    await machine.control.migrate(limits, (pfn, bytes) => {
      migration.content.set(pfn, bytes ? firstWord(bytes) : 0);
      migration.timesSent.set(pfn, (migration.timesSent.get(pfn) ?? 0) + 1);
    });
    return migration;
  }

  async finish(status = 'completed'): Promise<void> {
    const { control } = this.#machine;
    await control.setMigrationLimits(FAST);
    await this.#machine.until(
      async () => OVER.includes((await control.queryMigration()).status),
      'the migration',
    );
    expect((await control.queryMigration()).status).toBe(status);
    // The stream's last pages may be on their way still; the guest goes on where it was.
    if (status === 'completed') await control.cont();
    await this.#machine.settle();
  }

  /** As the destination has it in the end; null: nothing was received. */
  received(pfn: Pfn): number | null {
    return this.content.get(pfn) ?? null;
  }
}

const OVER: readonly string[] = ['completed', 'failed', 'cancelled'];

const fillers = new WeakMap<Puppet, Pfn>();

/** Pages that keep a slow migration busy, once for each machine. Returns the first one. */
function filler(puppet: Puppet): Pfn {
  const known = fillers.get(puppet);
  if (known !== undefined) return known;
  const pfn = puppet.pages(FILLER_ORDER);
  fillers.set(puppet, pfn);
  return pfn;
}

/** Behind the filler a hint comes in time. Returns the first frame of `order` there. */
export function pagesBehindFiller({ puppet }: Bench, order: number): Pfn {
  const fillerPfn = filler(puppet);
  for (;;) {
    const pfn = puppet.pages(order);
    if (pfn > fillerPfn) return pfn;
  }
}

/** Migrate, and wait until the device asks for hints. Returns the id that it published. */
export async function requestedRound(bench: Bench): Promise<{ migration: Migration; id: number }> {
  const { machine, puppet, run } = bench;
  filler(puppet);
  const migration = await Migration.start(machine);
  const id = await run(() => puppet.change('free_page_hint_cmd_id', 0));
  return { migration, id };
}

/** The same, and the driver has answered: hints count from here on. */
export async function openRound(bench: Bench): Promise<{ migration: Migration; id: number }> {
  const round = await requestedRound(bench);
  await sendId(bench, round.id);
  return round;
}

export async function sendId({ puppet, run }: Bench, id: number): Promise<void> {
  await run(() => puppet.exchange('free_page_vq', { out: [le32s([id])] }));
}

/** One hint, one chain; waits until the device has used it. Returns the used length. */
export function hint({ puppet, run }: Bench, pfn: Pfn, pageCount = 1): Promise<number> {
  return run(() => puppet.exchange('free_page_vq', { in: [puppet.segment(pfn, pageCount)] }));
}

function firstWord(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}
