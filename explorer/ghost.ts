/**
 * What an explored machine should be like, kept beside it: who has isolated which page, which frames
 * are out of use, what the pages of a user hold. Fed by the allocator's calls and the tracer's notes.
 */
import type { PageTracer } from '../guest/kernel/kernel.ts';
import type { Ram } from '../guest/machine/ram.ts';
import type { Pfn } from '../shared/index.ts';
import type { Actor } from './actor.ts';
import { Violation } from './violation.ts';

/** What a schedule's steps did, in words; only while one is printed. */
export type NoteSink = (text: string) => void;

/** A line of the event log, without its time. */
export function describeEvent(
  event: string,
  fields: Readonly<Record<string, unknown>> = {},
): string {
  const told = Object.entries(fields).map(([key, value]) => `${key}=${value}`);
  return [event, ...told].join(' ');
}

/** Tracer notes that begin and end an isolation. */
const BEGINS = 'isolate';
const ENDS: readonly string[] = ['putback', 'migrated', 'isolate failed'];

export class Ghost implements PageTracer {
  sink: NoteSink | null = null;
  /** Who runs. */
  actor: () => Actor | null = () => null;
  /** Actor by the page that it has isolated. */
  readonly #isolators = new Map<Pfn, Actor | null>();
  /** Frames that a soft offline has taken out of use. */
  readonly offlined: Pfn[] = [];
  /** What a user wrote last, by frame; nobody else writes there. */
  readonly #contents = new Map<Pfn, number>();

  note(what: string, pfn: Pfn): void {
    this.sink?.(`${what} ${pfn}`);
    if (what === BEGINS) this.#isolated(pfn);
    else if (ENDS.includes(what)) this.#isolators.delete(pfn);
    else if (what === 'hwpoison') this.offlined.push(pfn);
  }

  say(text: string): void {
    this.sink?.(text);
  }

  /** Pages that are isolated and by this actor. */
  isolatedBy(actor: Actor): Pfn[] {
    const pfns: Pfn[] = [];
    for (const [pfn, isolator] of this.#isolators) if (isolator === actor) pfns.push(pfn);
    return pfns;
  }

  /** A user wrote the page. */
  wrote(ram: Ram, pfn: Pfn): void {
    ram.write(pfn);
    this.#contents.set(pfn, ram.tags[pfn]!);
  }

  /** The user gives the page up. */
  forget(pfn: Pfn): void {
    this.#contents.delete(pfn);
  }

  checkContents(ram: Ram): void {
    for (const [pfn, tag] of this.#contents) {
      if (ram.tags[pfn] === tag) continue;
      throw new Violation(
        'a page in use keeps its content',
        `page ${pfn} holds record ${ram.tags[pfn]}, its user wrote ${tag}`,
      );
    }
  }

  allocated(pfn: Pfn, order: number): void {
    for (const offlined of this.offlined) {
      if (offlined < pfn || offlined >= pfn + (1 << order)) continue;
      throw new Violation(
        'a poisoned frame is never allocated again',
        `frame ${offlined} was taken out of use, and is allocated`,
      );
    }
  }

  #isolated(pfn: Pfn): void {
    const actor = this.actor();
    if (this.#isolators.has(pfn)) {
      const first = this.#isolators.get(pfn)?.name ?? 'nobody';
      throw new Violation(
        'a page has at most one isolator',
        `page ${pfn} is isolated by ${actor?.name}, and already by ${first}`,
      );
    }
    this.#isolators.set(pfn, actor);
  }
}
