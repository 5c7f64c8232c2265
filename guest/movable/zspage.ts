/** One to four pages with the objects of one size class in them (linux mm/zsmalloc.c). */
import { assert, type Pfn } from '../../shared/index.ts';
import type { SizeClass } from './size-class.ts';

/** Not a handle. */
export const NO_HANDLE = 0;

/** Where an object is: the page that it begins in, and its index in its zspage. */
export interface ObjectLocation {
  readonly pfn: Pfn;
  readonly object: number;
}

export class Zspage {
  readonly sizeClass: SizeClass<Zspage>;
  /** The pool's own; its pages carry it in page->mapping. */
  readonly number: number;
  /** In the order of their objects. Page migration replaces single ones. */
  readonly pfns: Pfn[];
  /** Handle of each object, by its index; 0: free. */
  readonly handles: Uint32Array;
  inUse = 0;
  /** The zspage's lock: so many have it mapped and read it; who moves a page needs 0. */
  readers = 0;

  constructor(sizeClass: SizeClass<Zspage>, number: number, pfns: Pfn[]) {
    this.number = number;
    this.sizeClass = sizeClass;
    this.pfns = pfns;
    this.handles = new Uint32Array(sizeClass.objectsPerZspage);
  }

  /** Gives the first free object to a handle; returns its index. Under the class's lock. */
  take(handle: number): number {
    const object = this.handles.indexOf(NO_HANDLE);
    assert(object >= 0, 'a zspage that is not full has a free object');
    this.handles[object] = handle;
    this.inUse++;
    if (this.inUse === this.handles.length) {
      this.sizeClass.partial.delete(this);
      this.sizeClass.full.add(this);
    }
    return object;
  }

  /** Frees an object. True: it was the last one, and the zspage is no longer of its class. */
  give(object: number): boolean {
    assert(this.handles[object] !== NO_HANDLE, 'an object is freed once');
    const { partial, full } = this.sizeClass;
    this.handles[object] = NO_HANDLE;
    this.inUse--;
    if (full.delete(this)) partial.add(this);
    if (this.inUse > 0) return false;
    assert(this.readers === 0, 'what is mapped is not freed');
    return partial.delete(this);
  }
}
