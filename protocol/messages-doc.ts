import type { FieldKind } from './field-kind.ts';
import { MESSAGES } from './messages.ts';

/**
 * docs/messages.md, made from the table of messages. `npx vitest run test/unit/protocol -u`
 * writes it anew after the table has changed.
 */

const KIND_TEXT: Readonly<Record<FieldKind, string>> = {
  u8: 'integer in 0 … 255',
  u16: 'integer in 0 … 65535',
  u32: 'integer in 0 … 2^32−1',
  u53: 'integer in 0 … 2^53−1: virtual nanoseconds or a guest physical address',
  bool: 'boolean',
  str: 'string of at most 4096 characters',
  bin: 'bytes; arrays of numbers are little-endian',
  counters: 'flat list of at most 512 pairs of name and number',
  lines: 'list of at most 256 strings',
};

const INTRODUCTION = `# Messages of the channel

Generated from \`protocol/messages.ts\`; a test keeps the two equal.

A frame is its length as u32, little-endian, then one msgpack array of at most 4096 messages and 64 MiB. A message is a
positional array: its id, then its fields in the order below. Only arrays, integers, floats, booleans, strings and bytes
may occur: a map, an extension type or deeper nesting ends the session. The host is the master: each of its frames is
answered by exactly one frame. The first frame of each side is \`hello\` alone; the last message of a session is \`bye\`,
or \`error\` when the session has broken.
`;

/** The whole document. */
export function messagesMarkdown(): string {
  const sections = new Map<string, string[]>();
  for (const [name, { id, group, from, fields, doc }] of Object.entries(MESSAGES)) {
    const rows = sections.get(group) ?? [];
    const list = Object.entries(fields).map(([field, kind]) => `\`${field}\` ${kind}`);
    rows.push(`| ${id} | \`${name}\` | ${from} | ${list.join(', ')} | ${doc} |`);
    sections.set(group, rows);
  }
  const kinds = Object.entries(KIND_TEXT).map(([kind, text]) => `| ${kind} | ${text} |`);
  const tables = [...sections].map(([group, rows]) =>
    [
      `## ${group}`,
      '',
      '| id | message | sent by | fields | meaning |',
      '|---|---|---|---|---|',
      ...rows,
      '',
    ].join('\n'),
  );
  const kindTable = ['## Kinds of fields', '', '| kind | holds |', '|---|---|', ...kinds, ''];
  return [INTRODUCTION, ...tables, kindTable.join('\n')].join('\n');
}
