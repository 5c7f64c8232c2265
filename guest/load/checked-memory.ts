/**
 * Anonymous memory of a process that remembers what it wrote, and looks whether it is still there
 * before it writes again.
 */
import type { Errno } from '../../shared/index.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import type { MemoryUsers } from '../memory-users/memory-users.ts';
import type { Process } from '../process/process.ts';
import type { Kthread } from '../sched/kthread.ts';

export class CheckedMemory {
  readonly #users: MemoryUsers;
  readonly #holds: ContentReader;
  readonly #process: Process;
  readonly #cpu: number;
  /** Content of each page when it was last written; 0: it has none. */
  readonly #tags: Uint32Array;

  /** Null: a process of that name is there already. */
  static start(
    users: MemoryUsers,
    holds: ContentReader,
    { name, pages, cpu }: { readonly name: string; readonly pages: number; readonly cpu: number },
  ): CheckedMemory | null {
    const process = users.startProcess({ name, anonPages: pages });
    return process ? new CheckedMemory(users, holds, process, cpu) : null;
  }

  private constructor(users: MemoryUsers, holds: ContentReader, process: Process, cpu: number) {
    this.#users = users;
    this.#holds = holds;
    this.#process = process;
    this.#cpu = cpu;
    this.#tags = new Uint32Array(process.anonPages);
  }

  get pages(): number {
    return this.#tags.length;
  }

  /** False: the OOM killer has ended it. */
  get isAlive(): boolean {
    return this.#process.isAlive;
  }

  /** Errors as of `Process.touchRange`. */
  *write(first: number, count: number): Kthread<Errno> {
    this.#check(first, count);
    // Until it is written, whatever may be found there.
    this.#tags.fill(0, first, first + count);
    const outcome = yield* this.#process.touchRange(first, count, true, this.#cpu);
    const { ram } = this.#users.kernel;
    for (let vpn = first; vpn < first + count; vpn++) {
      const pfn = this.#process.isAlive ? this.#process.pfnAt(vpn) : -1;
      this.#tags[vpn] = pfn >= 0 ? ram.tags[pfn]! : 0;
    }
    return outcome;
  }

  /** Gives pages back: they are none until they are written again. */
  discard(first: number, count: number): void {
    if (!this.#process.isAlive) return;
    this.#check(first, count);
    this.#process.dontNeed(first, count, this.#cpu);
    this.#tags.fill(0, first, first + count);
  }

  /** A child that writes the first pages, which are copied for it, and ends. */
  *forkAndWrite(childName: string, count: number): Kthread<Errno> {
    const child = this.#users.fork(this.#process.name, childName, this.#cpu);
    if (typeof child === 'number') return child;
    const outcome = yield* child.touchRange(0, count, true, this.#cpu);
    this.#users.exit(childName, this.#cpu);
    return outcome;
  }

  exit(): void {
    this.#users.exit(this.#process.name, this.#cpu);
  }

  /** Empty when every page holds what was written to it. */
  audit(holds: ContentReader): string[] {
    if (!this.#process.isAlive) return [];
    const problems: string[] = [];
    for (const [vpn, tag] of this.#tags.entries()) {
      const pfn = this.#process.pfnAt(vpn);
      if (tag === 0 || (pfn >= 0 && holds(pfn, tag))) continue;
      problems.push(
        `page ${vpn} of ${this.#process.name} (frame ${pfn}) has lost what was written`,
      );
    }
    return problems;
  }

  #check(first: number, count: number): void {
    if (!this.#process.isAlive) return;
    for (let vpn = first; vpn < first + count; vpn++) {
      const pfn = this.#process.pfnAt(vpn);
      if (pfn >= 0 && this.#tags[vpn] !== 0) this.#holds(pfn, this.#tags[vpn]!);
    }
  }
}
