/** What the tests of the suite are written with: a machine for each, and the puppet that drives it. */
import { it as declare } from 'vitest';
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

export interface Suite {
  /** Nothing has touched the device. */
  test(title: string, options: MachineOptions, test: Test): void;
  /** The device is ready, with every offered feature and queue. */
  it(title: string, options: MachineOptions & BootOptions, test: Test): void;
}

/** Who wants to know what became of each test, by its full name. */
export const outcomes = { passed: new Set<string>(), failed: new Set<string>() };

/** How to declare tests that each get a machine of their own. */
export function suiteOf(start: StartMachine): Suite {
  const test: Suite['test'] = (title, options, body) => {
    declare(title, async ({ task }) => {
      const name = `${task.suite?.name} > ${title}`;
      outcomes.failed.add(name);
      const machine = await start(options);
      try {
        await body({ machine, puppet: new Puppet(machine), run: (thread) => machine.run(thread) });
      } finally {
        await machine[Symbol.asyncDispose]();
      }
      outcomes.failed.delete(name);
      outcomes.passed.add(name);
    });
  };
  const it: Suite['it'] = (title, options, body) => {
    test(title, options, async (bench) => {
      await bench.run(() => bench.puppet.boot(options));
      await body(bench);
    });
  };
  return { test, it };
}
