/**
 * What programs of user space do with their memory, by name. It remembers what was written to each
 * page, so that an audit can say whether every one still holds it.
 */
import { BallastError, Errno, type Pfn } from '../../shared/index.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import type { MemoryUsers } from '../memory-users/memory-users.ts';
import { PageFlag } from '../mm/index.ts';
import type { AddressSpace } from '../page-cache/page-cache.ts';
import type { Process } from '../process/process.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { ContentChecks } from './content-checks.ts';

/** Processes and files in all: a page names what it is part of by eight bits, and other users of it too. */
const NAMES_MAX = 120;

export type PinKind = 'vfio' | 'longterm' | 'short';

interface Program {
  readonly process: Process;
  /** Shared memory that it maps, behind the anonymous pages; named after who made it. */
  readonly shmem: AddressSpace | null;
  /** Content of each virtual page when it was last written here; 0: never. */
  readonly tags: Uint32Array;
  /** Pages of which it has taken a short reference. */
  readonly taken: Pfn[];
}

export class UserSpace {
  readonly #users: MemoryUsers;
  readonly #contents: Pick<ContentChecks, 'read'>;
  readonly #programs = new Map<string, Program>();

  constructor(users: MemoryUsers, contents: Pick<ContentChecks, 'read'>) {
    this.#users = users;
    this.#contents = contents;
  }

  /** A process whose memory is all there from the beginning. */
  *start(name: string, kind: 'anonymous' | 'shmem', size: number, cpu: number): Kthread<Errno> {
    const anonPages = kind === 'anonymous' ? size : 0;
    this.#mustHaveRoom();
    const process = this.#users.startProcess({ name, anonPages });
    if (!process) {
      throw new BallastError('BAD_INPUT', `there is a process ${name} already`);
    }
    const shmem = kind === 'shmem' ? this.#createShmem(name, size) : null;
    if (shmem) process.mmap(shmem);
    this.#programs.set(name, { process, shmem, tags: new Uint32Array(size), taken: [] });
    return yield* this.touch(name, size, true, cpu);
  }

  /** Errors as of `MemoryUsers.fork`. */
  fork(parent: string, name: string, cpu: number): Errno {
    const { shmem, tags } = this.#program(parent);
    this.#mustHaveRoom();
    const process = this.#users.fork(parent, name, cpu);
    if (typeof process === 'number') return process;
    this.#programs.set(name, { process, shmem, tags: tags.slice(), taken: [] });
    return Errno.OK;
  }

  /** Reads or writes its first pages. EINTR: it was killed. */
  *touch(name: string, pageCount: number, write: boolean, cpu: number): Kthread<Errno> {
    const program = this.#program(name);
    const outcome = yield* program.process.touchRange(0, pageCount, write, cpu);
    if (write) this.#remember(program, pageCount);
    else this.#compare(program, pageCount);
    return outcome;
  }

  /** Ends a process, unless the OOM killer was faster; its shared memory goes with its last user. */
  *exit(name: string, cpu: number): Kthread {
    const { shmem } = this.#program(name);
    this.unpin(name);
    this.#programs.delete(name);
    this.#users.exit(name, cpu);
    const isShared = [...this.#programs.values()].some((other) => other.shmem === shmem);
    if (shmem && !isShared) yield* this.#users.removeSpace(shmem.name);
  }

  /** The first pages of a process, until `unpin`. Errors as of `Gup.pinLongterm`. */
  *pin(name: string, kind: PinKind, pageCount: number): Kthread<Errno> {
    const { process, taken } = this.#program(name);
    if (kind !== 'short') return yield* this.#users.container(name).pinRange(process, 0, pageCount);
    for (let vpn = 0; vpn < pageCount; vpn++) {
      const outcome = yield* process.touch(vpn, false);
      if (outcome !== Errno.OK) return outcome;
      const pfn = process.pfnAt(vpn);
      this.#users.gup.get(pfn);
      taken.push(pfn);
    }
    return Errno.OK;
  }

  /** Ends every pin of a process. */
  unpin(name: string): void {
    this.#users.closeContainer(name);
    for (const pfn of this.#program(name).taken.splice(0)) this.#users.gup.put(pfn);
  }

  /** A file, made when it is first spoken of; its size is that of the first time. */
  file(name: string, sizePages: number): AddressSpace {
    const key = `file ${name}`;
    const found = this.#users.spaces.get(key);
    if (found) return found;
    this.#mustHaveRoom();
    return this.#users.createSpace({ name: key, kind: 'file', sizePages })!;
  }

  #mustHaveRoom(): void {
    if (this.#users.processes.size + this.#users.spaces.size < NAMES_MAX) return;
    throw new BallastError('BAD_INPUT', `expected at most ${NAMES_MAX} processes and files`);
  }

  /** Pages of a process. */
  sizeOf(name: string): number {
    return this.#program(name).tags.length;
  }

  /** Empty when every page holds what was written to it. */
  audit(holds: ContentReader): string[] {
    const problems: string[] = [];
    for (const [name, program] of this.#programs) {
      if (!program.process.isAlive) continue;
      for (const [vpn, tag] of program.tags.entries()) {
        const pfn = frameOf(program, vpn);
        if (tag === 0 || (pfn >= 0 && holds(pfn, tag))) continue;
        problems.push(`page ${vpn} of ${name} (frame ${pfn}) has lost what was written to it`);
      }
    }
    for (const space of this.#users.spaces.values())
      problems.push(...this.#auditFile(space, holds));
    return problems;
  }

  /** A clean page of a file holds what is stored. */
  #auditFile(file: AddressSpace, holds: ContentReader): string[] {
    const { folios } = this.#users;
    const problems: string[] = [];
    for (let index = 0; file.kind === 'file' && index < file.sizePages; index++) {
      const pfn = file.pfnAt(index);
      if (pfn < 0 || folios.pages.hasFlag(pfn, PageFlag.DIRTY)) continue;
      if (holds(pfn, file.storedTag(index))) continue;
      problems.push(`page ${index} of ${file.name} (frame ${pfn}) is not what is stored`);
    }
    return problems;
  }

  #createShmem(name: string, sizePages: number): AddressSpace {
    // A child may use what an earlier process of that name has left.
    let key = `shmem ${name}`;
    while (this.#users.spaces.has(key)) key += "'";
    return this.#users.createSpace({ name: key, kind: 'shmem', sizePages })!;
  }

  #remember(program: Program, pageCount: number): void {
    const { ram } = this.#users.kernel;
    for (let vpn = 0; vpn < pageCount; vpn++) {
      const pfn = frameOf(program, vpn);
      program.tags[vpn] = pfn >= 0 ? ram.tags[pfn]! : 0;
    }
    if (!program.shmem) return;
    for (const other of this.#programs.values()) {
      if (other.shmem === program.shmem) other.tags.set(program.tags);
    }
  }

  /** What was read is what was written. */
  #compare(program: Program, pageCount: number): void {
    if (!program.process.isAlive) return;
    for (let vpn = 0; vpn < pageCount; vpn++) {
      const pfn = frameOf(program, vpn);
      const tag = program.tags[vpn]!;
      if (pfn >= 0 && tag !== 0) this.#contents.read(pfn, tag);
    }
  }

  #program(name: string): Program {
    const program = this.#programs.get(name);
    if (program) return program;
    throw new BallastError('BAD_INPUT', `there is no process ${name}`);
  }
}

/** The frame of a virtual page, mapped or only in the cache; −1: none. */
function frameOf({ process, shmem }: Program, vpn: number): Pfn {
  return shmem ? shmem.pfnAt(vpn) : process.pfnAt(vpn);
}
