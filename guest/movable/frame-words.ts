/**
 * What single words of a page hold, for users whose pages have structure. RAM records one tag a
 * page; this keeps the words beside it, by frame, so that content that was not moved with its page,
 * or that somebody else overwrote or discarded, is missed.
 */
import { assert, type Pfn } from '../../shared/index.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import type { Ram } from '../machine/ram.ts';

interface Frame {
  readonly words: Uint32Array;
  /** What RAM said of the page when the words were last written. */
  tag: number;
}

export class FrameWords {
  readonly #ram: Ram;
  readonly #wordsPerPage: number;
  readonly #frames = new Map<Pfn, Frame>();

  constructor(ram: Ram, wordsPerPage: number) {
    this.#ram = ram;
    this.#wordsPerPage = wordsPerPage;
  }

  /** A page of zeroes. */
  add(pfn: Pfn): void {
    assert(!this.#frames.has(pfn), 'a frame has one set of words');
    this.#ram.fill(pfn, 1, 0);
    this.#frames.set(pfn, { words: new Uint32Array(this.#wordsPerPage), tag: 0 });
  }

  /** The page is about to be freed. */
  drop(pfn: Pfn): void {
    const had = this.#frames.delete(pfn);
    assert(had, 'a page that is dropped had words');
  }

  read(pfn: Pfn, index: number): number {
    return this.#of(pfn).words[index]!;
  }

  write(pfn: Pfn, index: number, value: number): void {
    const frame = this.#of(pfn);
    frame.words[index] = value;
    this.#ram.write(pfn);
    frame.tag = this.#ram.tags[pfn]!;
  }

  /** Copies the page; both have words then. */
  copy(from: Pfn, to: Pfn): void {
    const { words, tag } = this.#of(from);
    this.#ram.copy(from, to);
    this.#frames.set(to, { words: words.slice(), tag });
  }

  /** What is wrong with the page, or null. */
  audit(pfn: Pfn, holds: ContentReader): string | null {
    const frame = this.#frames.get(pfn);
    if (!frame) return `page ${pfn} was never written`;
    if (holds(pfn, frame.tag)) return null;
    return `page ${pfn} holds ${this.#ram.tags[pfn]}, its user wrote ${frame.tag}`;
  }

  #of(pfn: Pfn): Frame {
    const frame = this.#frames.get(pfn);
    assert(frame !== undefined, 'words are of a page in use');
    return frame;
  }
}
