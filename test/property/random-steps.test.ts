/**
 * Whatever a monitor, an administrator and programs do while a guest is migrated: its books are clean in
 * the end, and no page is lost. `RANDOM_STEPS=1000` tries so many seeds.
 */
import { expect, test } from 'vitest';
import { STRATEGIES } from '../../protocol/control.ts';
import { MIB, NS_PER_MS, Prng } from '../../shared/index.ts';
import { inProcess, MIGRATE } from '../support/in-process.ts';

const SEEDS = Number(process.env['RANDOM_STEPS'] ?? 100);
const STEPS = 24;
const RAM_PAGES = 4096;

type Machine = Awaited<ReturnType<typeof inProcess>>;

class Play {
  readonly said: string[] = [];
  readonly #machine: Machine;
  readonly #random: Prng;
  #loads = 0;
  readonly #running: string[] = [];
  #migrates = false;
  #hints = false;
  lostPages = 0;

  constructor(machine: Machine, random: Prng) {
    this.#machine = machine;
    this.#random = random;
  }

  async step(): Promise<void> {
    const { hypervisor } = this.#machine;
    const { balloon, vmm } = hypervisor;
    const steps: Readonly<Record<string, () => unknown>> = {
      wait: () => this.#wait(this.#random.below(200)),
      target: () => hypervisor.setBalloon(this.#random.below(RAM_PAGES / 4)),
      empty: () => hypervisor.setBalloon(0),
      migrate: () => this.#begin(),
      cancel: () => hypervisor.cancelMigration(),
      finish: () => this.#finishMigration(),
      hint: () => this.#hint(),
      hintStop: () => {
        if (this.#hints && vmm.device.canHint) balloon.hintStop();
      },
      stop: () => {
        vmm.running = false;
      },
      cont: () => {
        if (!this.#migrates) vmm.running = true;
      },
      churn: () => this.#start('kind=churn keep=800 chunk=16 rate=2000'),
      rewrite: () => this.#start('kind=rewrite set=400 rate=2000'),
      fork: () => this.#start('kind=fork per_second=20 private=50'),
      pressure: () => this.#start(`kind=pressure leave=${500 + this.#random.below(1000)}`),
      end: () => this.#end(),
      freeze: () => hypervisor.console('freeze'),
      restore: () => hypervisor.console('restore'),
      remove: () => hypervisor.console('driver action=remove'),
      probe: () => hypervisor.console('driver action=probe'),
      stall: () => hypervisor.disturbLink(50 * NS_PER_MS),
      cut: () => hypervisor.disturbLink(null),
    };
    const names = Object.keys(steps);
    const name = names[this.#random.below(names.length)]!;
    this.said.push(name);
    await steps[name]!();
    await this.#wait(this.#random.below(30));
  }

  /** Everything that was begun ends. */
  async end(): Promise<void> {
    const { hypervisor } = this.#machine;
    await this.#finishMigration();
    hypervisor.vmm.running = true;
    while (this.#running.length > 0) this.#end();
    hypervisor.console('restore');
    hypervisor.console('driver action=probe');
    hypervisor.setBalloon(0);
    await this.#wait(1000);
  }

  async #wait(ms: number): Promise<void> {
    const { hypervisor } = this.#machine;
    await hypervisor.runUntil(hypervisor.vmm.now + ms * NS_PER_MS);
    if (this.#migrates && !isUnderWay(hypervisor.queryMigration().status)) {
      await this.#finishMigration();
    }
  }

  async #begin(): Promise<void> {
    if (this.#migrates) return;
    this.#migrates = true;
    const params = {
      ...MIGRATE,
      bandwidthBytesPerS: (5 + this.#random.below(200)) * MIB,
      pauseBeforeSwitchover: this.#random.chance(1, 4),
    };
    await this.#machine.hypervisor.beginMigration(params, null);
  }

  async #finishMigration(): Promise<void> {
    if (!this.#migrates) return;
    this.#migrates = false;
    const { memory } = await this.#machine.hypervisor.finishMigration();
    this.lostPages += memory.lost_pages + memory.broken_free_pages;
  }

  #hint(): void {
    const { balloon, vmm } = this.#machine.hypervisor;
    if (this.#migrates || !vmm.device.canHint) return;
    this.#hints = true;
    balloon.hintStart(this.#random.chance(1, 2));
  }

  #start(line: string): void {
    const name = `load${this.#loads++}`;
    this.#running.push(name);
    this.#machine.hypervisor.console(`start name=${name} ${line}`);
  }

  #end(): void {
    const name = this.#running.pop();
    if (name !== undefined) this.#machine.hypervisor.console(`finish name=${name}`);
  }
}

function isUnderWay(status: string): boolean {
  return !['none', 'completed', 'failed', 'cancelled'].includes(status);
}

async function played(seed: number): Promise<object> {
  const random = new Prng(seed);
  const strategy = STRATEGIES[seed % STRATEGIES.length]!;
  const initOnAlloc = random.chance(1, 2);
  const machine = await inProcess({
    seed,
    guest: {
      ramPages: RAM_PAGES,
      strategy,
      mm: { initOnAlloc, initOnFree: false, pagePoison: false },
    },
  });
  await machine.hypervisor.runUntil(100 * NS_PER_MS);
  const play = new Play(machine, random);
  for (let i = 0; i < STEPS; i++) await play.step();
  await play.end();
  const problems = await machine.hypervisor.verify();
  const { counters } = await machine.hypervisor.status();
  const corruptions = counters['guest.corruptions'];
  return { problems, lost: play.lostPages, corruptions, said: play.said.join(' '), strategy };
}

test('random steps leave clean books and lose no page', async () => {
  for (let seed = 0; seed < SEEDS; seed++) {
    const found = await played(seed);
    expect({ seed, ...found }).toMatchObject({ problems: [], lost: 0, corruptions: 0 });
  }
});
