/**
 * What must hold of the guest's pages after each step, and what must hold once all threads are done:
 * the invariants of page migration, the balloon and free page hinting, each with a name of its own.
 */
import { PageFlag, PageOwner } from '../guest/mm/index.ts';
import type { Pfn } from '../shared/index.ts';
import type { Actor } from './actor.ts';
import type { ExploredMachine } from './machine.ts';
import { Violation } from './violation.ts';

const WATCHED = PageFlag.ISOLATED | PageFlag.HWPOISON;
/** Flags of a page that somebody still uses or looks for. */
const IN_USE =
  PageFlag.ISOLATED | PageFlag.MOVABLE | PageFlag.LRU | PageFlag.OFFLINE | PageFlag.LOCKED;
const MOVABLE_OWNERS: readonly number[] = [
  PageOwner.BALLOON,
  PageOwner.ZSMALLOC,
  PageOwner.DRIVER,
  PageOwner.TABLE,
];
/** Free page iteration: each block is visited when the lock is held, and is free then. */
const ITERATION = 'free page iteration yields what is free while the lock is held';

export class Invariants {
  readonly #machine: ExploredMachine;
  /** Free pages once the machine has booted. */
  readonly #freePagesAtBoot: number;

  #isolatedInBalloon = 0;

  constructor(machine: ExploredMachine) {
    this.#machine = machine;
    this.#freePagesAtBoot = machine.freePages;
    this.#watchIteration();
  }

  /** After a step of this actor. */
  check(actor: Actor | null, isDone: boolean): void {
    const { ghost, runs, system } = this.#machine;
    const { flags, order } = system.mm.pages;
    this.#isolatedInBalloon = 0;
    for (let i = 0; i < runs.length; i++) {
      const [start, end] = runs[i]!;
      for (let pfn = start; pfn < end; pfn += 1 << order[pfn]!) {
        if ((flags[pfn]! & WATCHED) !== 0) this.#checkPage(pfn);
      }
    }
    this.#checkIsolatedCount();
    this.#checkOfflined();
    ghost.checkContents(system.ram);
    if (actor && isDone) this.#checkEnded(actor);
  }

  /** All threads are done, the balloon is empty, nothing is on its way. */
  checkEnd(): void {
    const { system, device, ghost } = this.#machine;
    const problems = system.audit();
    if (problems.length > 0) throw new Violation('the audit finds nothing', problems.join('; '));
    const poisoned = ghost.offlined.length;
    this.#equal(
      'the poisoned pages are those of successful soft offlines',
      ['PG_hwpoison', poisoned],
      ['num_poisoned_pages', system.folios.poisonedPages],
    );
    this.#equal(
      'no page leaks',
      ['free pages', this.#machine.freePages + poisoned],
      ['at boot', this.#freePagesAtBoot],
    );
    const { lruvec } = system.folios;
    this.#equal(
      'no page stays isolated from the LRU',
      ['NR_ISOLATED_ANON', lruvec.isolatedAnonPages],
      ['NR_ISOLATED_FILE, negated', -lruvec.isolatedFilePages],
    );
    const { balloon_inflate, balloon_deflate } = system.driver.counters;
    this.#equal(
      'what was inflated was deflated',
      ['balloon_inflate', balloon_inflate],
      ['balloon_deflate', balloon_deflate],
    );
    this.#equal(
      'driver and device agree',
      ['host has', device.inflatedPages.count()],
      ['guest', 0],
    );
    this.#equal(
      'neither side broke the protocol',
      ['violations', device.protocolViolations],
      ['of the host', system.transport.counters.protocol_violations],
    );
  }

  #equal(invariant: string, one: [string, number], other: [string, number]): void {
    if (one[1] === other[1]) return;
    throw new Violation(invariant, `${one[0]}: ${one[1]}, ${other[0]}: ${other[1]}`);
  }

  #checkPage(pfn: Pfn): void {
    const { pages } = this.#machine.system.mm;
    const flags = pages.flags[pfn]!;
    if ((flags & PageFlag.HWPOISON) !== 0) {
      const isOut = pages.owner[pfn] === PageOwner.POISONED && (flags & IN_USE) === 0;
      if (!isOut) {
        throw new Violation(
          'a poisoned frame is nobody’s',
          `page ${pfn} has PG_hwpoison, and is still in use`,
        );
      }
      return;
    }
    const isMovable =
      (flags & PageFlag.MOVABLE) !== 0 && MOVABLE_OWNERS.includes(pages.owner[pfn]!);
    if (!isMovable) {
      throw new Violation('an isolated page is movable', `page ${pfn} is isolated and not movable`);
    }
    this.#checkReferences(pfn);
    if (pages.owner[pfn] === PageOwner.BALLOON) this.#checkBalloonPage(pfn);
  }

  /** Its place in `mapping` says whether the page is on the list; no device: it was moved or released. */
  #checkBalloonPage(pfn: Pfn): void {
    const { mm, generation } = this.#machine.system;
    if (mm.pages.mappingObject(pfn) !== 0) this.#isolatedInBalloon++;
    // Without a page lock the driver is asked after PG_isolated is set.
    if (generation.name === 'pfn' || mm.pages.mappingIndex(pfn) === 0) return;
    throw new Violation(
      'an isolated page is not on the balloon’s list',
      `page ${pfn} is isolated, and deflation can still take it from the list`,
    );
  }

  /** One reference of the isolator, one of the owner if it has one; or frozen. */
  #checkReferences(pfn: Pfn): void {
    const { mm, generation } = this.#machine.system;
    const references = mm.pages.refcount[pfn]!;
    const isFrozen = generation.name === 'pfn';
    const isOwned = mm.pages.mapping[pfn] !== 0;
    const holds = isFrozen ? references === 0 : references >= (isOwned ? 2 : 1);
    if (holds) return;
    throw new Violation(
      'an isolated page has the references of its isolator and its owner',
      `page ${pfn} is isolated with ${references} references`,
    );
  }

  #checkOfflined(): void {
    const { ghost, system } = this.#machine;
    for (const pfn of ghost.offlined) {
      if (system.mm.pages.hasFlag(pfn, PageFlag.HWPOISON)) continue;
      throw new Violation(
        'a poisoned frame is never used again',
        `frame ${pfn} was taken out of use, and has no PG_hwpoison any more`,
      );
    }
  }

  /** Without a page lock PG_isolated is set before the driver is asked: then there may be more. */
  #checkIsolatedCount(): void {
    const { driver, generation } = this.#machine.system;
    const flagged = this.#isolatedInBalloon;
    const counted = driver.isolatedPages;
    if (flagged === counted || (generation.name === 'pfn' && flagged > counted)) return;
    throw new Violation(
      'isolated_pages counts the isolated pages of the balloon',
      `${flagged} pages of the balloon are isolated, isolated_pages is ${counted}`,
    );
  }

  /** A thread that ends has no page isolated. */
  #checkEnded(actor: Actor): void {
    const left = this.#machine.ghost.isolatedBy(actor);
    if (left.length === 0) return;
    throw new Violation(
      'who isolates a page migrates it or puts it back',
      `${actor.name} ends and leaves isolated: ${left.join(' ')}`,
    );
  }

  #watchIteration(): void {
    const { strategy, mm } = this.#machine.system;
    if (!strategy || !('iterator' in strategy)) return;
    const iterator = strategy.iterator as import('../guest/mm/index.ts').FreePageIterator;
    const step = iterator.step.bind(iterator);
    iterator.step = (budget, out) => {
      const result = step(budget, out);
      for (let i = 0; i < result.count; i++) {
        const pfn = out.pfns[i]!;
        const order = out.orders[i]!;
        this.#machine.ghost.say(`free block ${pfn}+${1 << order}`);
        if (mm.pages.areAll(pfn, order, true)) continue;
        throw new Violation(ITERATION, `block ${pfn}+${1 << order} was yielded and is not free`);
      }
      return result;
    };
  }
}
