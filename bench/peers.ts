/**
 * `npm run bench:peers`: our host, over the channel, beside QEMU's device, over qtest. Both get the
 * same work in two ways, in turns: prepared beforehand, so that the device alone is measured; and
 * from the same driver threads through the same rings.
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
import { measurePreparedFrames } from './prepared-frames.ts';
import { measurePreparedLines } from './prepared-lines.ts';
import { renderTable } from './table.ts';

const LEAST_RUNS = 5;
/** 1 GiB. */
const OPTIONS: MachineOptions = {
  ramPages: 1 << 18,
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
      preparedOurs: () => measure(start.ours, work, measurePreparedFrames),
      preparedQemu: () => measure(start.qemu, work, measurePreparedLines),
      ours: () => measure(start.ours, work),
      qemu: () => measure(start.qemu, work),
    });
    const figure = { bench: 'beside QEMU', unit: 'k/s' } as const;
    const target = { of: 'ratio', atLeast: 1 } as const;
    figures.push(
      {
        ...figure,
        name: work.name,
        samples: samples.preparedOurs,
        reference: { name: 'QEMU', samples: samples.preparedQemu },
        target,
      },
      {
        ...figure,
        name: `${work.name}, by our driver`,
        samples: samples.ours,
        reference: { name: 'QEMU', samples: samples.qemu },
        target,
      },
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
    return (work.chainsPerRound * work.perChain * work.rounds) / seconds / 1e3;
  } finally {
    await machine[Symbol.asyncDispose]();
  }
}

process.exitCode = await main();
