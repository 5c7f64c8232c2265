/**
 * One small machine in one process: the guest's kernel around the explorer's scheduler, the real
 * device and the real migration thread. Each queue of the device, each interrupt and each
 * acknowledgement is an actor of its own.
 */
import { POISON_TAG } from '../guest/machine/ram.ts';
import { System } from '../guest/machine/system.ts';
import { Reliance } from '../guest/reliance/page-reliance.ts';
import type { Kthread } from '../guest/sched/kthread.ts';
import { ChannelTransport } from '../guest/virtio/channel-transport.ts';
import {
  BALLOON_DEVICE_DEFAULTS,
  BalloonDevice,
  type BalloonDeviceOptions,
} from '../host/balloon/device.ts';
import type { HintSink } from '../host/balloon/hinting.ts';
import {
  DEFAULT_KERNEL_OPTIONS,
  type ExploreScenario,
  type Message,
  toFloat64,
  toUint32,
} from '../protocol/index.ts';
import {
  assert,
  Bitmap,
  DEFAULT_COSTS,
  Errno,
  gpaToPfn,
  PAGE_SIZE_BYTES,
  type Pfn,
  type Plants,
  Prng,
} from '../shared/index.ts';
import { type Actor, QueueActor, ThreadActor } from './actor.ts';
import { describeEvent, Ghost } from './ghost.ts';
import { ExplorerScheduler } from './scheduler.ts';
import { Violation } from './violation.ts';

const PAGEBLOCK_PAGES = 512;
/** RAM comes in clusters of so many frames, and as many holes after each. */
const CLUSTER_PAGES = 16;
const CLUSTER_STRIDE = 32;
/** Rings small enough to be full now and then. */
const RING_SIZE_MAX = 16;
/** How many steps a fault holds things up. */
const DELAY_STEPS_MAX = 96;

type Completion = { readonly used: readonly Message[]; readonly vectors: readonly number[] };

export class ExploredMachine {
  readonly scenario: ExploreScenario;
  readonly plants: Plants;
  readonly seed: Prng;
  readonly scheduler = new ExplorerScheduler();
  readonly ghost = new Ghost();
  readonly system: System<ChannelTransport>;
  readonly device: BalloonDevice;
  /** The frames that hold RAM, and the runs of them as pairs of first frame and end. */
  readonly ram: Bitmap;
  readonly runs: readonly (readonly [start: Pfn, end: Pfn])[];
  /** The migration's hand on hints; null while none runs. */
  onHint: HintSink | null = null;
  /** What users give up once all threads are done. */
  readonly atEnd: (() => void)[] = [];
  /** Buffers of inflateq and deflateq that were not acknowledged yet. */
  tellHostPending = 0;
  /** False: allocations do not fail on purpose. */
  failsAllocations = false;
  readonly #faults: Prng;
  readonly #configIrq: QueueActor<Message<'configChanged'>>;
  readonly #queues: readonly QueueActor<Message<'avail'>>[];
  readonly #acks: readonly QueueActor<Completion>[];

  constructor(scenario: ExploreScenario, plants: Plants, seed: number) {
    this.scenario = scenario;
    this.plants = plants;
    this.seed = new Prng((Math.imul(scenario.seed, 0x9e3779b1) ^ seed) >>> 0);
    this.#faults = this.seed.split('faults');
    this.runs = runsOf(scenario);
    this.ram = new Bitmap(scenario.machine.frames);
    for (const [start, end] of this.runs) this.ram.setRange(start, end - start);
    this.ghost.actor = () => this.scheduler.current;
    this.scheduler.onNotify = () => this.#notified();
    this.scheduler.onAccess = (message) => this.#access(message);
    this.system = this.#newSystem();
    this.device = new BalloonDevice(this.#deviceOptions(), {
      post: (message) => this.#fromDevice(message),
      onHint: (...hint) => this.onHint?.(...hint),
    });
    this.#configIrq = this.scheduler.add(
      new QueueActor<Message<'configChanged'>>('irq config', 'interrupt', (message) => {
        this.ghost.say('the configuration has changed');
        this.system.transport.receive(message);
      }),
    );
    this.#queues = QUEUE_NAMES.map((name) =>
      this.scheduler.add(
        new QueueActor(`device ${name}`, 'notification', (message) => this.#avail(message)),
      ),
    );
    this.#acks = QUEUE_NAMES.map((name, index) =>
      this.scheduler.add(
        new QueueActor(`irq ${name}`, 'used buffer', (completion) =>
          this.#complete(index, completion),
        ),
      ),
    );
  }

  newThread(name: string, thread: Kthread): ThreadActor {
    return new ThreadActor(name, thread, this.scheduler.onAccess, () => this.scheduler.now);
  }

  /** Somebody at the monitor, which also works while the machine is stopped. */
  newMonitor(name: string, script: Kthread): ThreadActor {
    const { onAccess } = this.scheduler;
    return new ThreadActor(name, script, onAccess, () => this.scheduler.now, false);
  }

  get freePages(): number {
    return this.system.mm.freePages();
  }

  /** Nothing is on its way between driver and device. */
  get isQuiet(): boolean {
    return (
      this.#configIrq.length === 0 &&
      this.#queues.every((queue) => queue.length === 0) &&
      this.#acks.every((ack) => ack.length === 0)
    );
  }

  #newSystem(): System<ChannelTransport> {
    const { scenario, ghost, scheduler } = this;
    const { machine } = scenario;
    const system = new System(
      {
        ramPages: machine.frames,
        vcpus: machine.vcpus,
        mm: { initOnAlloc: true, initOnFree: false, pagePoison: machine.pagePoison },
        driver: { hintTrustedFreePages: this.plants.hintsTrustedFreePages },
        kernel: { ...DEFAULT_KERNEL_OPTIONS, movableGeneration: scenario.generation },
        strategy: scenario.strategy,
        iterate: scenario.iterate,
        costs: DEFAULT_COSTS,
      },
      {
        createTransport: (kernel) => new ChannelTransport(kernel),
        scheduler,
        log: { add: (_at, event, fields) => ghost.sink?.(describeEvent(event, fields)) },
        post: (message) => void this.device.handle(message),
        plants: this.plants,
        tracer: ghost,
        isExplored: true,
      },
    );
    const reserved = new Bitmap(machine.frames);
    reserved.setAll();
    for (const [start, end] of this.runs) reserved.clearRange(start, end - start);
    system.mm.adoptFreeSet(this.ram, undefined, reserved);
    // What was there before: a page that is lost differs at the destination.
    for (const [start, end] of this.runs) {
      for (let pfn = start; pfn < end; pfn++) system.ram.setInitial(pfn, false, false);
      if (machine.pagePoison) system.ram.fill(start, end - start, POISON_TAG);
    }
    this.#watchAllocator(system);
    return system;
  }

  /** fail_page_alloc, and what the ghost must know of the allocator. */
  #watchAllocator({ mm }: System): void {
    const { ghost } = this;
    const failOneIn = this.scenario.faults.allocFailures;
    const alloc = mm.alloc.bind(mm);
    mm.alloc = (order, gfp, cpu) => {
      if (this.failsAllocations && failOneIn > 0 && this.#faults.chance(1, failOneIn)) {
        ghost.say('allocation fails');
        return Errno.ENOMEM;
      }
      const pfn = alloc(order, gfp, cpu);
      if (pfn >= 0) ghost.allocated(pfn, order);
      return pfn;
    };
    const free = mm.free.bind(mm);
    mm.free = (pfn, order, cpu) => {
      this.#checkFree(pfn, order);
      free(pfn, order, cpu);
    };
  }

  #checkFree(pfn: Pfn, order: number): void {
    const inflated = this.device.inflatedPages;
    if (order > 0 || !inflated.get(pfn)) return;
    throw new Violation(
      'a page of the balloon is freed after its deflate was acknowledged',
      `page ${pfn} is freed while the host has it in the balloon`,
    );
  }

  #deviceOptions(): BalloonDeviceOptions {
    const { scenario, plants } = this;
    return {
      ...BALLOON_DEVICE_DEFAULTS,
      ramPages: scenario.machine.frames,
      ram: this.ram,
      costs: DEFAULT_COSTS,
      freePageHint: scenario.strategy !== 'none',
      hintWaitOnAck: scenario.strategy === 'alloc-ack',
      discardHints: scenario.discardHints,
      acceptLateHints: plants.lateHintAccepted,
    };
  }

  #access(message: Message): Message {
    const reply = this.device.handle(message);
    assert(reply !== null, 'a device access is answered');
    if (reply.name !== 'queue') return reply;
    return { ...reply, max_size: Math.min(reply.max_size, RING_SIZE_MAX) };
  }

  #notified(): void {
    for (const message of this.system.transport.drainAvail()) {
      const queue = this.#queues[message.queue]!;
      if (message.queue < TELL_HOST_QUEUES && ++this.tellHostPending > 1) {
        throw new Violation(
          'at most one buffer of inflateq and deflateq is outstanding',
          'the driver tells the host before the host has acknowledged what it told before',
        );
      }
      if (this.ghost.sink) this.ghost.say(describeKick(message));
      if (this.#delays(this.scenario.faults.lateDevice)) this.#delay(queue);
      queue.push(message, this.scheduler.now + DEFAULT_COSTS.notifyNs);
    }
  }

  #avail(message: Message<'avail'>): void {
    this.ghost.say('takes the notification');
    const { used, irqVectors, costNs } = this.device.handleAvail(message);
    const ack = this.#acks[message.queue]!;
    if (this.#delays(this.scenario.faults.delayedAcks)) this.#delay(ack);
    ack.push({ used, vectors: irqVectors }, this.scheduler.now + Math.round(costNs));
  }

  #complete(index: number, { used, vectors }: Completion): void {
    if (this.ghost.sink)
      this.ghost.say(used.length > 0 ? 'buffer used, interrupt' : 'nothing used');
    const { transport } = this.system;
    if (index < TELL_HOST_QUEUES) this.tellHostPending--;
    for (const message of used) transport.receive(message as Message<'used'>);
    for (const vector of vectors) transport.receive({ name: 'irq', vector });
  }

  #fromDevice(message: Message): void {
    if (message.name === 'configChanged') this.#configIrq.push(message, this.scheduler.now);
    else if (message.name === 'discard') this.#discard(toUint32(message.ranges)!);
    else assert(false, `the device posts nothing but changes and discards, found ${message.name}`);
  }

  #discard(ranges: Uint32Array): void {
    for (let i = 0; i < ranges.length; i += 2) {
      for (let j = 0; j < ranges[i + 1]!; j++) this.#checkDiscard(ranges[i]! + j);
      this.ghost.say(`discard ${ranges[i]}+${ranges[i + 1]}`);
      this.system.ram.discard(ranges[i]!, ranges[i + 1]!);
    }
  }

  #checkDiscard(pfn: Pfn): void {
    const { ram, reliance } = this.system;
    const tag = ram.tags[pfn]!;
    if (tag === 0 || reliance.of(pfn) === Reliance.NONE) return;
    throw new Violation(
      'nothing is discarded that somebody relies on',
      `page ${pfn} is discarded and holds record ${tag}, on which somebody relies`,
    );
  }

  #delays(oneIn: number): boolean {
    return oneIn > 0 && this.#faults.chance(1, oneIn);
  }

  #delay(queue: Actor): void {
    queue.notBeforeStep = this.scheduler.stepCount + 1 + this.#faults.below(DELAY_STEPS_MAX);
  }
}

/** What a notification carries: hinted blocks by frame, of other buffers their number. */
function describeKick({ queue, heads, in_gpa, in_bytes }: Message<'avail'>): string {
  const gpas = toFloat64(in_gpa)!;
  const sizes = toUint32(in_bytes)!;
  const blocks = Array.from(gpas, (gpa, i) => `${gpaToPfn(gpa)}+${sizes[i]! / PAGE_SIZE_BYTES}`);
  const buffers = heads.length / 2;
  const counted = buffers === 1 ? 'a buffer' : `${buffers} buffers`;
  const what = blocks.length > 0 ? blocks.join(' ') : counted;
  return `kick ${QUEUE_NAMES[queue]}: ${what}`;
}

/** As QEMU numbers the queues of what it offers here. */
const QUEUE_NAMES = ['inflateq', 'deflateq', 'free_page_vq'] as const;
/** inflateq and deflateq: one buffer for both. */
const TELL_HOST_QUEUES = 2;

/**
 * Clusters with gaps between them, an equal number in each pageblock: blocks enough for free list
 * walks and scanners to lose their way in, and few enough pages to look at in each step.
 */
function runsOf({ machine }: ExploreScenario): [Pfn, Pfn][] {
  const { frames, managed } = machine;
  if (managed === frames) return [[0, frames]];
  const blocks = Math.floor(frames / PAGEBLOCK_PAGES);
  const runs: [Pfn, Pfn][] = [];
  let left = managed;
  for (let slot = 0; left > 0; slot++) {
    const start = (slot % blocks) * PAGEBLOCK_PAGES + Math.floor(slot / blocks) * CLUSTER_STRIDE;
    const pages = Math.min(left, CLUSTER_PAGES);
    runs.push([start + CLUSTER_PAGES, start + CLUSTER_PAGES + pages]);
    left -= pages;
  }
  return runs.sort(([a], [b]) => a - b);
}
