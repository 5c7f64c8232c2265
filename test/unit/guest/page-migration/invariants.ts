/** What must hold of movable pages at every instant; says in words what does not. */
import { PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import type { MigrationMachine } from './machine.ts';
import type { ScriptedDriver } from './scripted-driver.ts';

export class InvariantChecker {
  readonly violations: string[] = [];
  readonly #machine: MigrationMachine;
  readonly #driver: ScriptedDriver;
  /** Pages that somebody has isolated, by what the tracer told. */
  readonly #isolators = new Set<string>();
  #notesSeen = 0;

  constructor(machine: MigrationMachine, driver: ScriptedDriver) {
    this.#machine = machine;
    this.#driver = driver;
  }

  check = (): void => {
    this.#followNotes();
    const { generation, pages } = this.#machine;
    const isList = generation.name === 'list';
    for (const pfn of this.#driver.isolated) {
      if (!generation.isIsolated(pfn)) this.#report(pfn, 'isolated for its driver only');
    }
    for (const pfn of this.#driver.privateOf.keys()) {
      const isIsolated = pages.hasFlag(pfn, PageFlag.ISOLATED);
      const references = pages.refcount[pfn]!;
      if (pages.owner[pfn] !== PageOwner.ZSMALLOC) this.#report(pfn, 'lost its type');
      if (!pages.hasFlag(pfn, PageFlag.MOVABLE)) this.#report(pfn, 'lost PG_movable_ops');
      if (isList && references < (isIsolated ? 2 : 1)) this.#report(pfn, `has ${references} refs`);
      if (!isList && references !== 0) this.#report(pfn, 'is not frozen');
      // Where the flag is set before the driver is asked it may be ahead of the driver.
      if (isList && isIsolated && !this.#driver.isolated.has(pfn)) {
        this.#report(pfn, 'isolated without its driver');
      }
    }
  };

  /** At the end, when nobody has anything isolated. */
  checkEnd(): void {
    this.check();
    for (const pfn of this.#isolators) this.violations.push(`${pfn} is still isolated`);
    if (this.#driver.isolated.size > 0) this.violations.push('the driver counts isolated pages');
    this.violations.push(...this.#machine.audit());
  }

  #followNotes(): void {
    const { notes } = this.#machine;
    for (; this.#notesSeen < notes.length; this.#notesSeen++) {
      const [, what, pfn] = /^(.*) (\d+)$/.exec(notes[this.#notesSeen]!)!;
      if (what === 'isolate') {
        if (this.#isolators.has(pfn!)) this.violations.push(`${pfn} has two isolators`);
        this.#isolators.add(pfn!);
      } else if (what !== 'release' && what !== 'hwpoison') this.#isolators.delete(pfn!);
    }
  }

  #report(pfn: number, what: string): void {
    this.violations.push(`${pfn} ${what}`);
  }
}
