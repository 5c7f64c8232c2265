/** What the tests of the suite are written with: a machine for each, and the puppet that drives it. */
import { it } from 'vitest';
import type { Kthread } from '../../guest/sched/kthread.ts';
import type { ConformanceMachine, MachineOptions } from '../../peers/conformance-machine.ts';
import { type BootOptions, Puppet } from './puppet.ts';

export type StartMachine = (options: MachineOptions) => Promise<ConformanceMachine>;

export interface Bench {
  readonly machine: ConformanceMachine;
  readonly puppet: Puppet;
  /** A thread of the guest. */
  run<T>(body: () => Kthread<T>): Promise<T>;
}

export type Test = (bench: Bench) => Promise<void>;

/** Declares tests that each get a machine of their own. */
export class Suite {
  readonly #start: StartMachine;

  constructor(start: StartMachine) {
    this.#start = start;
  }

  /** Nothing has touched the device. */
  cold(title: string, options: MachineOptions, test: Test): void {
    it(title, async () => {
      const machine = await this.#start(options);
      try {
        const run: Bench['run'] = (body) => machine.run(body);
        await test({ machine, puppet: new Puppet(machine), run });
      } finally {
        await machine[Symbol.asyncDispose]();
      }
    });
  }

  /** The device is ready, with every offered feature and queue. */
  ready(title: string, options: MachineOptions & BootOptions, test: Test): void {
    this.cold(title, options, async (bench) => {
      await bench.run(() => bench.puppet.boot(options));
      await test(bench);
    });
  }
}
