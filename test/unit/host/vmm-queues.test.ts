/** What is under way between guest and device when a queue, or the device, begins another life. */
import { describe, expect, test } from 'vitest';
import { Vmm } from '../../../host/vmm.ts';
import {
  bit,
  DeviceStatus,
  ExitReason,
  f64Bytes,
  featureWords,
  type GuestLink,
  type Message,
  u16Bytes,
  u32Bytes,
} from '../../../protocol/index.ts';
import { Bitmap, DEFAULT_COSTS, EventLog } from '../../../shared/index.ts';
import { A, AD, ADF, avail, DeviceBench, READY, words } from '../../support/device-bench.ts';

const RAM_PAGES = 1024;
const { notifyNs, elementNs, balloonPfnNs } = DEFAULT_COSTS;
const SUSPEND = bit(DeviceStatus.SUSPEND);

const status = (value: number): Message => ({ name: 'setStatus', status: value });
const setQueue = (index: number): Message => ({
  name: 'setQueue',
  index,
  size: 128,
  desc_gpa: 4096,
  avail_gpa: 8192,
  used_gpa: 12288,
});

/** A guest that says what a test has written down for its next run, and remembers what it heard. */
class ScriptedGuest implements GuestLink {
  readonly closed = Promise.resolve(null);
  readonly heard: Message[] = [];
  script: Message[] = [];
  /** Said at the end of a run instead of running on: the guest waits for the answer. */
  access: Message | null = null;

  async exchange(frame: readonly Message[]): Promise<Message[]> {
    this.heard.push(...frame);
    return frame.flatMap((message) => {
      if (message.name !== 'run') return [];
      const said = this.script;
      this.script = [];
      if (this.access === null) return [...said, exit(message.until_ns, ExitReason.UNTIL)];
      const { access } = this;
      this.access = null;
      return [...said, access, exit(message.until_ns, ExitReason.ACCESS)];
    });
  }

  async close(): Promise<void> {}
}

function exit(at_ns: number, reason: ExitReason): Message {
  return { name: 'exit', at_ns, reason, idle_until_ns: 0 };
}

/** A machine whose device is ready, with its first two queues. */
async function booted() {
  const ram = new Bitmap(RAM_PAGES);
  ram.setAll();
  const guest = new ScriptedGuest();
  const device = { ringReset: true, suspend: true };
  const { offered } = new DeviceBench(device);
  const vmm = new Vmm(
    guest,
    { ramPages: RAM_PAGES, ram, recordSizeBytes: 4, costs: DEFAULT_COSTS, device },
    new EventLog(),
  );
  const initialisation = [
    status(A),
    status(AD),
    { name: 'setDriverFeatures', ...featureWords(offered) } as const,
    status(ADF),
    setQueue(0),
    setQueue(1),
    status(READY),
  ];
  const say = async (...messages: Message[]): Promise<void> => {
    guest.script = messages;
    await vmm.advanceFor(1);
  };
  await say(...initialisation);
  expect(vmm.device.virtio.status).toBe(READY);
  const used = () => guest.heard.filter(({ name }) => name === 'used' || name === 'irq');
  const inflate = (head: number, pfn: number): Message<'avail'> => ({
    ...avail(0, [{ head, out: words(pfn) }]),
    at_ns: f64Bytes(Float64Array.of(vmm.now)),
  });
  return { guest, vmm, say, used, inflate, initialisation };
}

/** One chain that the device has used. */
const usedHead = (head: number): Message[] => [
  {
    name: 'used',
    queue: 0,
    heads: u16Bytes(Uint16Array.of(head)),
    written_bytes: u32Bytes(Uint32Array.of(0)),
  },
  { name: 'irq', vector: 0 },
];

const COST_NS = elementNs + balloonPfnNs;
/** How far the chain has got when its queue ends. */
const STAGES = [
  { stage: 'notified', waitNs: notifyNs / 2, inflated: 0 },
  { stage: 'served and not told', waitNs: notifyNs + COST_NS / 2, inflated: 1 },
];
const ENDS = [
  {
    end: 'the device is reset',
    messages: (initialisation: Message[]) => [status(0), ...initialisation],
  },
  {
    end: 'the queue is reset',
    messages: () => [{ name: 'resetQueue', index: 0 } as const, setQueue(0)],
  },
];

describe.each(ENDS)('when $end', ({ messages }) => {
  // spec: 2.4.1-device-2, 2.6.1.1.1-device-1
  test.each(STAGES)('a chain that was $stage is not the next ring’s', async (one) => {
    const { vmm, say, used, inflate, initialisation } = await booted();
    await say(inflate(3, 7));
    await vmm.advanceFor(one.waitNs);
    expect(vmm.device.inflatedPages.count()).toBe(one.inflated);
    await say(...messages(initialisation));
    await vmm.advanceFor(10 * notifyNs);
    await say();
    expect(used()).toEqual([]);
    expect(vmm.device.virtio.queue(0)?.outstandingCount).toBe(0);
    expect(vmm.device.metrics.inflated_pfns).toBe(one.inflated);

    await say(inflate(3, 9));
    await vmm.advanceFor(notifyNs + COST_NS + 1);
    await say();
    expect(used()).toEqual(usedHead(3));
    expect(vmm.device.protocolViolations).toBe(0);
  });
});

describe('at a suspension', () => {
  // spec: 3.4.2-device-8
  test('what was served is told before the driver can read that it is suspended', async () => {
    const { guest, vmm, say, inflate } = await booted();
    await say(inflate(3, 7));
    await vmm.advanceFor(notifyNs + COST_NS / 2);
    guest.heard.length = 0;
    guest.access = { name: 'getStatus' };
    await say(status(READY | SUSPEND));
    await say();
    expect(guest.heard.filter(({ name }) => name !== 'run')).toEqual([
      ...usedHead(3),
      { name: 'status', status: ADF | SUSPEND },
    ]);
    await vmm.advanceFor(10 * notifyNs);
    await say();
    expect(guest.heard.filter(({ name }) => name === 'used')).toHaveLength(1);
  });

  test('what was only notified waits for the resume', async () => {
    const { vmm, say, used, inflate } = await booted();
    await say(inflate(3, 7));
    await say(status(READY | SUSPEND));
    await vmm.advanceFor(10 * notifyNs);
    await say();
    expect(used()).toEqual([]);
    expect(vmm.device.inflatedPages.count()).toBe(0);
    await say(status(READY));
    await vmm.advanceFor(notifyNs);
    await say();
    expect(used()).toEqual(usedHead(3));
    expect(vmm.device.protocolViolations).toBe(0);
  });

  test('what waits is bounded by the rings', async () => {
    const { vmm, say, inflate } = await booted();
    await say(status(READY | SUSPEND));
    for (let i = 0; i < 10; i++) {
      await say(...Array.from({ length: 128 }, () => inflate(3, 7)));
      await vmm.advanceFor(2 * notifyNs);
    }
    expect(vmm.device.virtio.needsReset).toBe(false);
    await say(inflate(3, 7));
    await vmm.advanceFor(2 * notifyNs);
    expect(vmm.device.virtio.needsReset).toBe(true);
  });
});
