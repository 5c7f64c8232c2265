/** The host's end of the balloon benchmarks: the real run loop and device, and a wall clock. */
import { Vmm } from '../../host/vmm.ts';
import { hostHello, hostLink, listen, ramOf } from '../../protocol/index.ts';
import { DEFAULT_COSTS, EventLog, NS_PER_MS, NS_PER_S } from '../../shared/index.ts';
import type { Measured, Start } from './start.ts';

const BOOT_NS = 100 * NS_PER_MS;
const STEP_NS = 10 * NS_PER_MS;
/** Virtual time after which a round or a balloon that has not ended never will. */
const GIVE_UP_NS = 600 * NS_PER_S;

export async function serveBalloonHost(start: Start & { role: 'host' }): Promise<void> {
  const listener = await listen(start.address);
  process.send?.('ready');
  const link = hostLink(await listener.accept());
  await listener.close();
  const hello = await hostHello(link);
  const vmm = new Vmm(
    link,
    {
      ramPages: hello.ram_pages,
      ram: ramOf(hello),
      costs: DEFAULT_COSTS,
      device: { freePageHint: true, mustTellHost: false, acceptLateHints: false },
    },
    new EventLog(),
  );
  await vmm.advanceTo(BOOT_NS);
  const measure = start.measure === 'hints' ? measureHints : measureBalloon;
  // The first time compiles the code and touches the memory of both processes.
  await measure(vmm);
  const measured = await measure(vmm);
  if (vmm.device.protocolViolations > 0) throw new Error('the guest broke the protocol');
  process.send?.(measured);
}

/** From the request for a round to the last hint that the device took. */
async function measureHints(vmm: Vmm): Promise<Measured> {
  let hints = 0;
  let lastMs = 0;
  vmm.hintConsumer = {
    onHint: () => {
      hints++;
    },
    afterHints: async () => {
      lastMs = performance.now();
    },
  };
  const startMs = performance.now();
  vmm.device.hintStart();
  const startNs = vmm.now;
  let seen = -1;
  // The round is over when a while passes without a hint.
  while (hints !== seen || hints === 0) {
    seen = hints;
    await vmm.advanceFor(STEP_NS);
    if (vmm.now - startNs > GIVE_UP_NS) throw new Error('the guest sends no hints');
  }
  return { kind: 'hints', hints, ms: lastMs - startMs };
}

/** As large as the guest can make it, and back to nothing. */
async function measureBalloon(vmm: Vmm): Promise<Measured> {
  const pages = Math.floor(vmm.options.ramPages * 0.9);
  const inflateMs = await reach(vmm, pages);
  const deflateMs = await reach(vmm, 0);
  return { kind: 'balloon', pages, inflateMs, deflateMs };
}

async function reach(vmm: Vmm, pages: number): Promise<number> {
  const startNs = vmm.now;
  const startMs = performance.now();
  vmm.device.setTarget(pages);
  while (vmm.device.actualPages !== pages) {
    await vmm.advanceFor(STEP_NS);
    if (vmm.now - startNs > GIVE_UP_NS) throw new Error('the balloon does not reach its target');
  }
  return performance.now() - startMs;
}
