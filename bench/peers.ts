/**
 * `npm run bench:peers`: our host, over the channel, beside QEMU's device, over qtest. Both get the
 * same work from the same driver threads through the same rings, in turns; QEMU gets it in a second
 * way as well, as lines of qtest that were prepared beforehand, so that nothing but QEMU is slow.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { killIdleHost } from '../peers/ballast/host-process.ts';
import { BallastMachine } from '../peers/ballast/machine.ts';
import type { ConformanceMachine, MachineOptions } from '../peers/conformance-machine.ts';
import { QemuMachine } from '../peers/qemu/machine.ts';
import { qemuProgram } from '../peers/qemu/program.ts';
import { type Figure, sample, summarize } from './figure.ts';
import { PeerDriver, WORKS, type Work } from './peer-driver.ts';
import { measurePrepared } from './prepared-lines.ts';
import { renderTable } from './table.ts';

const LEAST_RUNS = 5;
/** 512 MiB. */
const OPTIONS: MachineOptions = {
  ramPages: 1 << 17,
  offers: { freePageHint: true, pageReporting: true },
};

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: String(LEAST_RUNS) },
      strict: { type: 'boolean', default: false },
    },
  });
  const runs = Math.max(LEAST_RUNS, Number(values.runs) || 0);
  const figures: Figure[] = [];
  const start = {
    ours: () => BallastMachine.start(OPTIONS),
    qemu: () => QemuMachine.start(qemuProgram(), 'mmio', OPTIONS),
  };
  for (const work of WORKS) {
    const samples = await sample(runs, {
      ours: () => measure(start.ours, work),
      qemu: () => measure(start.qemu, work),
      prepared: () => measure(start.qemu, work, measurePrepared),
    });
    const figure = {
      bench: 'beside QEMU',
      name: work.name,
      unit: 'k/s',
      samples: samples.ours,
    } as const;
    const target = { of: 'ratio', atLeast: 1 } as const;
    figures.push(
      { ...figure, reference: { name: 'QEMU, same driver', samples: samples.qemu }, target },
      { ...figure, reference: { name: 'QEMU, prepared lines', samples: samples.prepared }, target },
    );
  }
  killIdleHost();
  const summaries = figures.map(summarize);
  console.log(
    `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${runs} runs`,
  );
  console.log(renderTable(summaries));
  return values.strict && summaries.some(({ met }) => met === false) ? 1 : 0;
}

/** Thousands a second of one machine of its own. */
async function measure<M extends ConformanceMachine>(
  start: () => Promise<M>,
  work: Work,
  how: (driver: PeerDriver<M>, work: Work) => Promise<number> = (driver) => driver.measure(work),
): Promise<number> {
  const machine = await start();
  try {
    const driver = await PeerDriver.boot(machine);
    await driver.prepare(work);
    const seconds = await how(driver, work);
    return work.count / seconds / 1e3;
  } finally {
    await machine[Symbol.asyncDispose]();
  }
}

process.exitCode = await main();
