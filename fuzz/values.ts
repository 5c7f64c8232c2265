/** Values of fields: right ones of each kind, and wrong ones. */
import type { FieldKind } from '../protocol/field-kind.ts';
import { MESSAGES, type MessageName } from '../protocol/index.ts';
import type { Draw } from './draw.ts';
import { type Raw, rawToken } from './raw.ts';

/** Numbers at which code is most often wrong; the plainest first. */
const EDGES = [0, 1, 2, 3, 4, 7, 8, 0x7f, 0xff, 0x100, 0xfff, 0x1000, 0x7fff, 0x8000, 0xffff];
const EDGES_32 = [
  ...EDGES,
  0x10000,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_f000,
  0xffff_fffe,
  0xffff_ffff,
];
const EDGES_53 = [...EDGES_32, 0x1_0000_0000, 2 ** 44, 2 ** 52, Number.MAX_SAFE_INTEGER];

const MAX: Partial<Record<FieldKind, number>> = { u8: 0xff, u16: 0xffff, u32: 0xffff_ffff };

/** A number from its edges or from all of its range. */
export function number(draw: Draw, max: number): number {
  const edges = max <= 0xffff ? EDGES : max <= 0xffff_ffff ? EDGES_32 : EDGES_53;
  const edge = draw.pick(edges);
  if (draw.chance(1, 3)) return max > 0xffff_ffff ? draw.u32() * 4096 : draw.below(max + 1);
  return Math.min(edge, max);
}

export function u32(draw: Draw): number {
  return number(draw, 0xffff_ffff);
}

/** Anything that the kind allows. */
export function right(draw: Draw, kind: FieldKind): Raw {
  switch (kind) {
    case 'bool':
      return draw.chance(1, 2);
    case 'u53':
      return number(draw, Number.MAX_SAFE_INTEGER);
    case 'str':
      return 'x'.repeat(draw.pick([0, 1, 7, 16, 16, 33, 33, 4096]));
    case 'bin':
      return draw.bytes(draw.pick([0, 4, 8, 1, 2, 3, 12, 16, 24, 33]));
    case 'lines':
      return Array.from({ length: draw.pick([0, 1, 2, 3, 3, 3, 3, 256]) }, () => 'line');
    case 'counters':
      return Array.from({ length: 2 * draw.pick([0, 1, 2, 3, 3, 3, 3, 512]) }, (_, i) =>
        i % 2 === 0 ? 'n' : i,
      );
    default:
      return number(draw, MAX[kind]!);
  }
}

/** Something that the kind forbids: each of these ends a session, whatever the state is. */
export function wrong(draw: Draw, kind: FieldKind): Raw {
  const others: Raw[] = [
    null,
    [],
    [[]],
    rawToken(0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
  ];
  switch (kind) {
    case 'bool':
      return draw.pick<Raw>([...others, 0, 1, 'true', new Uint8Array(1)]);
    case 'str':
      return draw.pick<Raw>([...others, 0, true, new Uint8Array(1), 'x'.repeat(4097)]);
    case 'bin':
      return draw.pick<Raw>([...others, 0, true, 'x', [0, 1, 2]]);
    case 'lines':
      return draw.pick<Raw>([
        null,
        0,
        'x',
        [1],
        [null],
        Array.from({ length: 257 }, () => 'l'),
        [['x']],
      ]);
    case 'counters':
      return draw.pick<Raw>([
        null,
        0,
        ['n'],
        [1, 2],
        ['n', 'm'],
        ['n', Number.NaN],
        ['n', Number.POSITIVE_INFINITY],
        Array.from({ length: 1026 }, (_, i) => (i % 2 === 0 ? 'n' : i)),
      ]);
    default: {
      const max = MAX[kind] ?? Number.MAX_SAFE_INTEGER;
      return draw.pick<Raw>([
        ...others,
        -1,
        0.5,
        max + 1,
        Number.NaN,
        Number.NEGATIVE_INFINITY,
        2 ** 64,
        true,
        '0',
        new Uint8Array(4),
      ]);
    }
  }
}

export const NAMES = Object.keys(MESSAGES) as MessageName[];

/** Names of what the side may send, and of what it may not. */
export function namesOf(side: 'host' | 'guest', may: boolean): readonly MessageName[] {
  return NAMES.filter((name) => {
    const { from } = MESSAGES[name];
    return (from === 'both' || from === side) === may;
  });
}

export function kindsOf(name: MessageName): FieldKind[] {
  return Object.values(MESSAGES[name].fields);
}

/** A message of that name with any right value in each field. */
export function anyMessage(draw: Draw, name: MessageName): Raw[] {
  return [MESSAGES[name].id, ...kindsOf(name).map((kind) => right(draw, kind))];
}
