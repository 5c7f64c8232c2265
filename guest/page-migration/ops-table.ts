/** Movable operations by page type (linux mm/migrate.c, set_movable_ops). */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import { PageOwner, type Pages } from '../mm/index.ts';
import type { MovableOps } from './movable-ops.ts';

/** Types whose pages can be movable without being on the LRU. */
const MOVABLE_TYPES: readonly PageOwner[] = [
  PageOwner.BALLOON,
  PageOwner.ZSMALLOC,
  PageOwner.DRIVER,
  PageOwner.TABLE,
];

export class OpsTable {
  readonly #pages: Pages;
  readonly #ops: (MovableOps | undefined)[] = [];

  constructor(pages: Pages) {
    this.#pages = pages;
  }

  register(type: PageOwner, ops: MovableOps): Errno {
    if (!MOVABLE_TYPES.includes(type)) return Errno.EINVAL;
    if (this.#ops[type]) return Errno.EBUSY;
    this.#ops[type] = ops;
    return Errno.OK;
  }

  of(pfn: Pfn): MovableOps {
    const ops = this.#ops[this.#pages.owner[pfn]!];
    assert(ops !== undefined, 'a movable page has a type with operations');
    return ops;
  }
}
