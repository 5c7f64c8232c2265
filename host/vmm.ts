/**
 * The hypervisor's run loop: a discrete-event simulation that grants the guest virtual time up to
 * its own next event, takes what the guest's queues notify, and lets the device work. Guest and
 * host never differ by more than the grant, and at each host event both stand at the same instant.
 */

import {
  ExitReason,
  type GuestLink,
  type HostEvent,
  type HostEventData,
  HostEventEmitter,
  type HostEventName,
  type Message,
  type MessageName,
} from '../protocol/index.ts';
import {
  assert,
  BallastError,
  type Bitmap,
  type EventLog,
  EventQueue,
  type Nanoseconds,
  PAGE_SIZE_BYTES,
} from '../shared/index.ts';
import { BALLOON_DEVICE_DEFAULTS, BalloonDevice } from './balloon/device.ts';
import type { HintSink } from './balloon/hinting.ts';
import { type Completion, loadWork, type Notification, saveWork, WORK_MAX } from './device-work.ts';
import { ramBitmap } from './memory/ram-bitmap.ts';
import { RecordReader, TAG_RECORD_BYTES } from './memory/records.ts';
import type { State, StateFields } from './state/fields.ts';
import { Throttle } from './throttle.ts';
import type { VmmOptions } from './vmm-options.ts';
import { wakes } from './wakes.ts';

/**
 * A ring holds each chain once until it is used, so no more notifications can be under way than the
 * device's rings have entries; their answers fit into one frame.
 */
const NOTIFICATIONS_UNDER_WAY_MAX = 1280;
/** Far beyond any driver's work at one instant: the guest goes in circles. */
const EXITS_AT_ONE_INSTANT_MAX = 1_000_000;

/** Where hints go while a migration runs. */
export interface HintConsumer {
  readonly onHint: HintSink;
  /** All hints of one notification were given to `onHint`; nothing runs before it resolves. */
  afterHints(): Promise<void>;
}

export class Vmm {
  now: Nanoseconds;
  readonly device: BalloonDevice;
  readonly options: VmmOptions;
  /** Frames that hold RAM, holes not counted. */
  readonly ramPageCount: number;
  readonly log: EventLog;
  readonly records: RecordReader;
  hintConsumer: HintConsumer | null = null;
  /** What throttling has taken of the vCPUs' time. */
  readonly cpuThrottle: Throttle;
  readonly #link: GuestLink;
  readonly #events = new EventQueue<() => Promise<void> | void>();
  /** Posted messages: they go out ahead of the next request. */
  #outbox: Message[] = [];
  #guestNow: Nanoseconds;
  #exitsAtOneInstant = 0;
  /** Notifications whose `used` has not been posted yet. */
  #notificationsUnderWay = 0;
  /** What the device has still to do for the driver, in the order in which it became so. */
  readonly #work = new Set<Notification | Completion>();
  /** The guest said so at its last exit; 0 once something may have woken it. */
  #idleUntil: Nanoseconds = 0;
  /** Runs in the outbox: of a guest that was idle. */
  #postponedRuns = 0;
  #running = true;
  /** For observers; nothing in the host listens. */
  readonly events = new HostEventEmitter();
  /** What the device has still to do when the machine goes on. */
  #deferred: (() => Promise<void> | void)[] = [];

  constructor(link: GuestLink, options: VmmOptions, log: EventLog) {
    this.#link = link;
    this.options = options;
    this.now = options.startNs ?? 0;
    this.#guestNow = this.now;
    this.ramPageCount = options.ram.count();
    this.log = log;
    this.records = new RecordReader(options.recordSizeBytes ?? TAG_RECORD_BYTES, (message) =>
      this.request(message, 'records'),
    );
    this.cpuThrottle = new Throttle({
      now: () => this.now,
      post: (message) => this.post(message),
      after: (delayNs, action) => this.#events.schedule(this.now + delayNs, action),
    });
    this.device = new BalloonDevice(
      {
        ...BALLOON_DEVICE_DEFAULTS,
        ...options.device,
        ramPages: options.ramPages,
        ram: options.ram,
        costs: options.costs,
      },
      {
        post: (message) => this.post(message),
        onActual: (pages) =>
          this.emit('BALLOON_CHANGE', { actual: (this.ramPageCount - pages) * PAGE_SIZE_BYTES }),
        onHint: (firstPfn, pageCount, origin) =>
          this.hintConsumer?.onHint(firstPfn, pageCount, origin),
        now: () => this.now,
        after: (delayNs, action) => this.#whenRunning(this.now + delayNs, action),
        renotify: (message) => this.#notified(message, this.now),
        flushUsed: () => {
          for (const one of this.#work) if (one.kind === 'completion') this.#complete(one);
        },
      },
    );
  }

  /** False: vCPUs and device are stopped, and time passes for the host alone. */
  get running(): boolean {
    return this.#running;
  }

  set running(running: boolean) {
    if (this.#running !== running) this.emit(running ? 'RESUME' : 'STOP', {});
    this.#running = running;
    if (!running) return;
    for (const action of this.#deferred) this.#events.schedule(this.now, action);
    this.#deferred = [];
  }

  emit<N extends HostEventName>(event: N, data: HostEventData[N]): void {
    this.events.publish({ event, data, at_ns: this.now } as HostEvent);
  }

  /**
   * Let virtual time pass to `at`; everything due on the way happens, in order. Ends early once `stop`
   * holds, which is asked after each event and each exit of the guest.
   */
  async advanceTo(at: Nanoseconds, stop: () => boolean = never): Promise<void> {
    assert(Number.isInteger(at), 'time is an integer number of nanoseconds');
    while (!stop()) {
      const next = Math.min(this.#events.nextAt, at);
      if (this.running && this.#guestNow < next) {
        await this.#runGuest(next);
        continue;
      }
      if (this.#events.nextAt > at) {
        this.now = Math.max(this.now, at);
        return;
      }
      const event = this.#events.take()!;
      this.now = Math.max(this.now, event.at);
      await event.value();
    }
  }

  advanceFor(ns: Nanoseconds): Promise<void> {
    return this.advanceTo(this.now + Math.round(ns));
  }

  throttle(percentage: number): void {
    this.cpuThrottle.set(percentage);
  }

  /** Post a message to the guest; it takes effect at `now`. */
  post(message: Message): void {
    this.#outbox.push(message);
  }

  /** One request to the guest, at `now`; resolves with its reply. */
  async request<N extends MessageName>(message: Message, expected: N): Promise<Message<N>> {
    const reply = (await this.#exchange(message)).at(-1);
    if (reply?.name !== expected) {
      throw new BallastError(
        'MESSAGE_UNEXPECTED',
        `the guest answered ${message.name} with ${reply?.name ?? 'nothing'}, expected ${expected}`,
      );
    }
    return reply as Message<N>;
  }

  async getDirtyLog(clear: boolean): Promise<Bitmap> {
    const { bits } = await this.request({ name: 'getDirtyLog', clear }, 'dirtyLog');
    return ramBitmap(bits, this.options.ramPages);
  }

  /** Oracle: for evaluation alone. */
  async getFreeSet(): Promise<Bitmap> {
    const { bits } = await this.request({ name: 'getFreeSet' }, 'freeSet');
    return ramBitmap(bits, this.options.ramPages);
  }

  /** Content records of pages (tags), ranges as pairs of first frame and count. */
  readRecords(ranges: Uint32Array): Promise<Uint32Array> {
    return this.records.read(ranges);
  }

  /** What travels of a stopped machine beside its memory; all that was posted has reached the guest. */
  saveState(): State {
    assert(!this.#running && this.#outbox.length === 0, 'a machine is saved stopped and settled');
    return {
      now_ns: this.now,
      guest_now_ns: this.#guestNow,
      idle_until_ns: this.#idleUntil,
      device: this.device.saveState(),
      work: [...this.#work].map(saveWork),
    };
  }

  /**
   * Goes on where another machine stood; this one is new. Stopped until `running` is set.
   * @throws BallastError MESSAGE_INVALID naming the field that makes no sense.
   */
  loadState(fields: StateFields): void {
    this.#running = false;
    this.now = fields.int('now_ns', Number.MAX_SAFE_INTEGER);
    this.#guestNow = fields.int('guest_now_ns', this.now);
    this.#idleUntil = fields.int('idle_until_ns', Number.MAX_SAFE_INTEGER);
    this.device.loadState(fields.object('device'));
    const work = fields
      .items('work', WORK_MAX)
      .map((one) => loadWork(one, (index) => this.device.virtio.queue(index)));
    for (const one of work.sort((a, b) => a.dueNs - b.dueNs)) {
      this.#notificationsUnderWay++;
      this.#schedule({ ...one, dueNs: Math.max(one.dueNs, this.now) });
    }
  }

  /** What was posted reaches the guest. */
  async settle(): Promise<void> {
    await this.request({ name: 'read', ranges: new Uint8Array(0) }, 'records');
  }

  async #runGuest(until: Nanoseconds): Promise<void> {
    const { notifyNs } = this.options.costs;
    const run: Message<'run'> = { name: 'run', until_ns: until, notify_ns: notifyNs };
    if (until < this.#idleUntil && !this.#outbox.some(wakes)) {
      this.#postponeRun(run, until);
      return;
    }
    const frame = await this.#exchange(run);
    const exit = frame.at(-1);
    if (exit?.name !== 'exit' || exit.at_ns > until || exit.at_ns < this.#guestNow) {
      throw new BallastError(
        'MESSAGE_UNEXPECTED',
        `the guest answered run with ${exit?.name ?? 'nothing'}: expected exit between ${this.#guestNow} and ${until} ns`,
      );
    }
    this.#mustLetTimePass(exit.at_ns);
    this.#guestNow = exit.at_ns;
    this.#idleUntil = exit.idle_until_ns;
    this.now = Math.max(this.now, exit.at_ns);
    const waits = exit.reason === ExitReason.ACCESS;
    for (const message of frame.slice(0, waits ? -2 : -1)) this.#take(message);
    if (waits) this.#answerAccess(frame.at(-2));
  }

  #answerAccess(access: Message | undefined): void {
    const reply = access && this.device.handle(access);
    if (!reply) {
      const found = access?.name ?? 'nothing';
      throw new BallastError('MESSAGE_UNEXPECTED', `the guest waits for an answer to ${found}`);
    }
    this.#outbox.push(reply);
  }

  /** Throws BallastError MESSAGE_UNEXPECTED when the guest would keep us at one instant for ever. */
  #mustLetTimePass(exitAtNs: Nanoseconds): void {
    this.#exitsAtOneInstant = exitAtNs > this.#guestNow ? 0 : this.#exitsAtOneInstant + 1;
    if (this.#exitsAtOneInstant <= EXITS_AT_ONE_INSTANT_MAX) return;
    throw new BallastError(
      'MESSAGE_UNEXPECTED',
      `the guest exited ${EXITS_AT_ONE_INSTANT_MAX} times at ${exitAtNs} ns and lets no time pass`,
    );
  }

  /** An idle guest cannot answer with anything but the exit: it runs at the head of the next frame. */
  #postponeRun(run: Message<'run'>, until: Nanoseconds): void {
    if (this.#outbox.at(-1)?.name === 'run') this.#outbox.pop();
    else this.#postponedRuns++;
    this.#outbox.push(run);
    this.#guestNow = until;
    this.now = Math.max(this.now, until);
  }

  #take(message: Message): void {
    if (message.name !== 'avail') {
      if (this.device.handle(message) !== null) {
        throw new BallastError('MESSAGE_UNEXPECTED', `${message.name} without a waiting vCPU`);
      }
      return;
    }
    this.#notified(message, this.#handlingTimeOf(message));
  }

  #notified(message: Message<'avail'>, handledAtNs: Nanoseconds): void {
    if (++this.#notificationsUnderWay > NOTIFICATIONS_UNDER_WAY_MAX) {
      throw new BallastError(
        'MESSAGE_UNEXPECTED',
        `avail: expected at most ${NOTIFICATIONS_UNDER_WAY_MAX} unanswered, the rings hold no more`,
      );
    }
    const queue = this.device.virtio.queue(message.queue);
    this.#schedule({ kind: 'notification', dueNs: handledAtNs, message, queue });
  }

  #schedule(one: Notification | Completion): void {
    this.#work.add(one);
    this.#whenRunning(one.dueNs, () =>
      one.kind === 'notification' ? this.#handleAvail(one) : this.#complete(one),
    );
  }

  /** A stopped device leaves guest memory alone: what it wrote would be in no dirty sync. */
  #whenRunning(at: Nanoseconds, action: () => Promise<void> | void): void {
    this.#events.schedule(at, () => {
      if (this.#running) return action();
      this.#deferred.push(action);
    });
  }

  /**
   * The device looks at its queue `notifyNs` after the first notification. A run that ended on it
   * has let that time pass; one that ended on an event of ours has not. Times are the guest's word.
   */
  #handlingTimeOf(message: Message<'avail'>): Nanoseconds {
    const { at_ns: times } = message;
    if (times.length < 8) return this.now;
    const firstAtNs = new DataView(times.buffer, times.byteOffset).getFloat64(0, true);
    if (!Number.isInteger(firstAtNs)) return this.now;
    const latencyNs = Math.max(0, firstAtNs + this.options.costs.notifyNs - this.now);
    return this.now + Math.min(latencyNs, this.options.costs.notifyNs);
  }

  async #handleAvail(notification: Notification): Promise<void> {
    const { message, queue } = notification;
    this.#work.delete(notification);
    // Chains of a queue that was reset on the way mean nothing to the one in its place.
    if (this.device.virtio.queue(message.queue) !== queue) {
      this.#notificationsUnderWay--;
      return;
    }
    const { used, irqVectors, costNs } = this.device.handleAvail(message);
    this.log.add(this.now, 'avail', {
      queue: message.queue,
      chains: message.heads.length / 2,
      status: this.device.hintStatus,
    });
    const completion: Completion = {
      kind: 'completion',
      dueNs: this.now + Math.round(costNs),
      index: message.queue,
      queue,
      used,
      irqVectors,
    };
    this.#work.add(completion);
    await this.hintConsumer?.afterHints();
    this.#schedule(completion);
  }

  /** Tell the driver what was used; nothing, if the queue is not the same any more. */
  #complete(completion: Completion): void {
    if (!this.#work.delete(completion)) return;
    this.#notificationsUnderWay--;
    const { index, queue, used, irqVectors } = completion;
    if (this.device.virtio.queue(index) !== queue) return;
    this.#outbox.push(...used);
    for (const vector of irqVectors) this.#outbox.push({ name: 'irq', vector });
  }

  async #exchange(request: Message): Promise<Message[]> {
    const frame = [...this.#outbox, request];
    const postponed = this.#postponedRuns;
    this.#outbox = [];
    this.#postponedRuns = 0;
    if (frame.some(wakes)) this.#idleUntil = 0;
    const replies = await this.#link.exchange(frame);
    for (const exit of replies.splice(0, postponed)) {
      if (exit.name !== 'exit' || exit.reason !== ExitReason.UNTIL) {
        throw new BallastError(
          'MESSAGE_UNEXPECTED',
          `the guest said it was idle and answered run with ${exit.name}`,
        );
      }
    }
    return replies;
  }
}

const never = (): boolean => false;
