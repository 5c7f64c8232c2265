/**
 * A hostile guest and our device: every step of status, features, configuration and queues in every
 * state, every way in which a buffer can be wrong, and what the run loop makes of answers that are
 * none.
 */
import { type DeviceConfig, ExitReason, MESSAGES } from '../protocol/index.ts';
import { BUFFER_MISTAKES } from './buffer-mistakes.ts';
import {
  ANY,
  endOf,
  judge,
  type Kind,
  type Outcome,
  REJECTED,
  type Session,
  type Verdict,
} from './case.ts';
import { Draw } from './draw.ts';
import { DRIVER_MISTAKES, type Maker, type Mistake } from './driver-mistakes.ts';
import { HostMachine, STATES, type State, variantOf } from './host-machine.ts';
import { exit } from './hostile-guest.ts';
import type { Raw } from './raw.ts';

/** Messages that wait for the guest at most, and their bytes: docs/fuzzing.md says why. */
const OUTBOX_MESSAGES_MAX = 256;
const OUTBOX_BYTES_MAX = 1 << 20;

const MAKERS = Object.entries<Maker>({ ...DRIVER_MISTAKES, ...BUFFER_MISTAKES });

/** Answers to `run` that are none. */
const EXITS: Readonly<
  Record<string, (draw: Draw, untilNs: number, nowNs: number) => readonly Raw[]>
> = {
  'run: no answer': () => [],
  'run: another answer': (_draw, untilNs) => [
    exit(untilNs),
    [MESSAGES.records.id, new Uint8Array(4)],
  ],
  'run: exit after the grant': (draw, untilNs) => [exit(untilNs + draw.pick([1, 4096, 2 ** 50]))],
  'run: exit in the past': (_draw, _untilNs, nowNs) => [exit(nowNs - 1)],
  'run: access without a message': (_draw, untilNs) => [exit(untilNs, 0, ExitReason.ACCESS)],
  'run: bye in the middle': (_draw, untilNs) => [[MESSAGES.bye.id], exit(untilNs)],
};
const EXIT_LABELS = Object.keys(EXITS);

class DeviceSession implements Session {
  #machine: HostMachine;
  readonly #variant: DeviceConfig;

  constructor(seed: number) {
    this.#variant = variantOf(new Draw(seed));
    this.#machine = new HostMachine(this.#variant);
  }

  get trace(): readonly string[] {
    return [JSON.stringify(this.#variant), ...this.#machine.guest.trace];
  }

  async next(draw: Draw): Promise<Verdict> {
    const machine = this.#machine;
    machine.guest.begin();
    if (draw.chance(1, 16)) return this.#exit(draw);
    const state = await machine.reach(draw.pick(STATES), draw);
    const [label, mistake] = this.#mistake(draw, state);
    const verdict = await this.#send(draw, state, label, mistake);
    return this.#bounded(verdict);
  }

  close(): null {
    return null;
  }

  #mistake(draw: Draw, state: State): readonly [label: string, mistake: Mistake] {
    const first = draw.below(MAKERS.length);
    for (let i = 0; ; i++) {
      const [label, make] = MAKERS[(first + i) % MAKERS.length]!;
      const mistake = make(draw, this.#machine, state);
      if (mistake) return [label, mistake];
    }
  }

  async #send(draw: Draw, state: State, label: string, mistake: Mistake): Promise<Verdict> {
    const machine = this.#machine;
    const { device, guest, vmm } = machine;
    const violations = device.protocolViolations;
    const broken = device.virtio.needsReset;
    const { access, posted } = mistake;
    guest.answerNext((_frame, honest) => {
      const last = [...(honest.at(-1) as Raw[])];
      if (access) last[2] = ExitReason.ACCESS;
      return [...posted, ...(access ? [access] : []), last];
    });
    let outcome: Outcome;
    try {
      // A machine that stops has notifications under way, and goes on with them later.
      await machine.settle(state === 'stopped' ? 1 : draw.pick([1_000_000, 20_000, 1]));
      vmm.running = state !== 'stopped';
      await machine.settle();
      vmm.running = true;
      await machine.settle();
      await machine.settle(1_000);
      outcome = this.#outcome(violations, broken);
    } catch (error) {
      endOf(error);
      this.#machine = new HostMachine(this.#variant);
      outcome = 'ended';
    }
    // What a device with quirks makes of a mistake is its own affair, as long as it survives it.
    const isOurs = this.#variant.profile === undefined;
    const verdict = judge(label, outcome, isOurs ? mistake.allowed : ANY);
    if (verdict.problem !== null || !isOurs) return verdict;
    const problem = outcome === 'ended' ? null : (mistake.check?.(machine) ?? null);
    return { ...verdict, problem: problem && `${label}: ${problem}` };
  }

  #outcome(violations: number, broken: boolean): Outcome {
    const { device, guest } = this.#machine;
    if (device.virtio.needsReset && !broken) return 'broken';
    if (device.protocolViolations > violations) return 'counted';
    return guest.received.some(({ name }) => name === 'used') ? 'served' : 'ignored';
  }

  async #exit(draw: Draw): Promise<Verdict> {
    const { guest, vmm } = this.#machine;
    const label = draw.pick(EXIT_LABELS);
    await this.#machine.reach('live', draw);
    const nowNs = vmm.now;
    guest.answerNext((frame) => {
      const run = frame.find((message) => message.name === 'run');
      return EXITS[label]!(draw, run?.name === 'run' ? run.until_ns : 0, nowNs);
    });
    const violations = vmm.device.protocolViolations;
    try {
      await this.#machine.settle();
    } catch (error) {
      endOf(error);
      this.#machine = new HostMachine(this.#variant);
      return judge(label, 'ended', REJECTED);
    }
    return judge(label, this.#outcome(violations, false), REJECTED);
  }

  #bounded(verdict: Verdict): Verdict {
    const { outboxMessages, outboxBytes } = this.#machine.guest;
    if (outboxMessages <= OUTBOX_MESSAGES_MAX && outboxBytes <= OUTBOX_BYTES_MAX) return verdict;
    const problem = `${verdict.label}: ${outboxMessages} messages of ${outboxBytes} bytes wait for the guest`;
    return { ...verdict, problem };
  }
}

export const DEVICE: Kind = {
  name: 'device',
  direction: 'guest-to-host',
  about: 'messages and buffers of a driver, in every state of the device',
  weight: 60,
  casesPerSession: 64,
  open: (seed) => new DeviceSession(seed),
};
