import { MultiBar, Presets, type SingleBar } from 'cli-progress';
import type { Progress } from '../machine/control.ts';

/** How far a long command is, on stderr: bars on a terminal, a line now and then elsewhere. */

/** Anything shorter needs no progress. */
const QUIET_MS = 1000;
const LINE_EVERY_MS = 5000;

export class ProgressDisplay {
  readonly #startMs = performance.now();
  readonly #bars = new Map<string, SingleBar>();
  #lastLineMs = performance.now() + QUIET_MS - LINE_EVERY_MS;
  #multi: MultiBar | null = null;

  /** `name`: which of several things that run at once. */
  report(name: string, { what, done, total }: Progress): void {
    const nowMs = performance.now();
    if (nowMs - this.#startMs < QUIET_MS || total <= 0) return;
    if (process.stderr.isTTY)
      this.#bar(name).update(Math.min(100, (100 * done) / total), { name, what });
    else this.#line(name, what, Math.floor((100 * done) / total), nowMs);
  }

  stop(): void {
    this.#multi?.stop();
  }

  #bar(name: string): SingleBar {
    this.#multi ??= new MultiBar(
      {
        stream: process.stderr,
        clearOnComplete: true,
        hideCursor: true,
        format: '{name} |{bar}| {percentage} % {what}',
      },
      Presets.shades_classic,
    );
    let bar = this.#bars.get(name);
    if (!bar) {
      bar = this.#multi.create(100, 0, { name, what: '' });
      this.#bars.set(name, bar);
    }
    return bar;
  }

  #line(name: string, what: string, percent: number, nowMs: number): void {
    if (nowMs - this.#lastLineMs < LINE_EVERY_MS) return;
    this.#lastLineMs = nowMs;
    process.stderr.write(`${name}: ${what} ${percent} %\n`);
  }
}
