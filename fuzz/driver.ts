/**
 * A hostile host and our guest: every message that a host may send, wrong ones among right ones,
 * while the driver probes, inflates, hints and reports.
 */
import { ANY, endOf, judge, type Kind, type Outcome, type Session, type Verdict } from './case.ts';
import { Draw } from './draw.ts';
import { GuestMachine, type GuestVariant, guestVariantOf, RAM_PAGES } from './guest-machine.ts';
import { HOST_MISTAKES, type HostMistake } from './host-mistakes.ts';
import { positional } from './raw.ts';

/** What the guest may answer one frame with at most: docs/fuzzing.md says why. */
const REPLY_BYTES_MAX = 4 << 20;
/** Lines that are typed and still at work. */
const CONSOLE_PENDING_MAX = 256;

const MAKERS = Object.entries(HOST_MISTAKES);
const MS = 1_000_000;

class DriverSession implements Session {
  readonly #variant: GuestVariant;
  #machine: GuestMachine;

  constructor(seed: number) {
    this.#variant = guestVariantOf(new Draw(seed));
    this.#machine = new GuestMachine(this.#variant);
    this.#machine.runFor(10 * MS);
  }

  get trace(): readonly string[] {
    const { guest, device } = this.#variant;
    return [`${guest.strategy} ${JSON.stringify(device)}`, ...this.#machine.trace];
  }

  next(draw: Draw): Verdict {
    const machine = this.#machine;
    machine.begin();
    if (draw.chance(1, 8)) this.#honest(draw);
    const [label, mistake] = this.#mistake(draw);
    const violations = machine.violations;
    let outcome: Outcome;
    try {
      if (mistake.frame) machine.exchange(mistake.frame);
      outcome = machine.violations > violations ? 'counted' : 'served';
    } catch (error) {
      // Without a run it was refused before anything happened: the guest itself is as it was.
      if (mistake.runs) this.#replace(draw, error);
      else machine.trace.push(`ended: ${endOf(error).message}`);
      return this.#bounded(judge(label, 'ended', mistake.allowed));
    }
    try {
      mistake.act?.();
      machine.tamper = mistake.tamper ?? positional;
      machine.runFor(draw.pick([1, 10, 0.1, 100]) * MS);
    } catch (error) {
      this.#replace(draw, error);
      return judge(label, 'ended', mistake.tamper ? ANY : mistake.allowed);
    }
    if (machine.violations > violations) outcome = 'counted';
    return this.#bounded(judge(label, outcome, mistake.allowed));
  }

  close(): string | null {
    // A host may write and discard what it likes: no page need hold what was written there.
    const [problem] = this.#machine.guest.system.audit(false);
    return problem === undefined ? null : `the audit finds: ${problem}`;
  }

  #mistake(draw: Draw): readonly [label: string, mistake: HostMistake] {
    const first = draw.below(MAKERS.length);
    for (let i = 0; ; i++) {
      const [label, make] = MAKERS[(first + i) % MAKERS.length]!;
      const mistake = make(draw, this.#machine);
      if (mistake) return [label, mistake];
    }
  }

  /** The session is over: another guest, one in some of them still without a driver. */
  #replace(draw: Draw, error: unknown): void {
    const { trace } = this.#machine;
    trace.push(`ended: ${endOf(error).message}`);
    this.#machine = new GuestMachine(this.#variant);
    if (!draw.chance(1, 4)) this.#machine.runFor(10 * MS);
    this.#machine.trace.splice(0, Number.POSITIVE_INFINITY, ...trace);
  }

  /** What keeps the driver busy. */
  #honest(draw: Draw): void {
    const { device } = this.#machine;
    draw.pick([
      () => device.setTarget(draw.pick([512, 0, 64, 4096, RAM_PAGES])),
      () => void device.hintStart(),
      () => device.hintStop(),
      () => device.hintDone(),
      () => device.stats.setInterval(draw.pick([100 * MS, 0])),
      () => device.virtio.setNeedsReset(),
    ])();
  }

  #bounded(verdict: Verdict): Verdict {
    const { replyBytes, guest } = this.#machine;
    const pending = guest.statistics()['console_pending'] ?? 0;
    if (replyBytes <= REPLY_BYTES_MAX && pending <= CONSOLE_PENDING_MAX) return verdict;
    const problem = `${verdict.label}: an answer of ${replyBytes} bytes, ${pending} lines at work`;
    return { ...verdict, problem };
  }
}

export const DRIVER: Kind = {
  name: 'driver',
  direction: 'host-to-guest',
  about: 'answers, used buffers, memory requests and console lines, while the driver works',
  weight: 50,
  casesPerSession: 256,
  open: (seed) => new DriverSession(seed),
};
