import { createHash } from 'node:crypto';
import { BallastError } from '../../shared/index.ts';
import type { Sender } from '../message-shape.ts';

/**
 * Settings that two processes must have in common: lines `key=value`, ascending by key. An empty list
 * asks for nothing.
 */
export type Agreement = readonly string[];

/** Keys that a refusal names; of more there is the number. */
const NAMED_MAX = 3;
const VALUE_CHARACTERS = 40;

/** Hexadecimal SHA-256; empty for a side that asks for nothing. */
export function agreementDigest(agreement: Agreement): string {
  if (agreement.length === 0) return '';
  return createHash('sha256').update(agreement.join('\n')).digest('hex');
}

export interface Side {
  readonly role: Sender;
  readonly agreement: Agreement;
  readonly digest: string;
}

/** @throws BallastError HELLO_MISMATCH naming the keys in which the sides differ. */
export function mustAgree(theirs: Side, ours: Side): void {
  if (theirs.digest === '' || ours.digest === '' || theirs.digest === ours.digest) return;
  const keys = differingKeys(theirs.agreement, ours.agreement);
  const named = keys.slice(0, NAMED_MAX).map((key) => {
    const [there, here] = [theirs, ours].map((side) => settingOf(side.agreement, key));
    return `${key} (${theirs.role} ${there}, ${ours.role} ${here})`;
  });
  if (keys.length > NAMED_MAX) named.push(`${keys.length - NAMED_MAX} more`);
  const what = named.join(', ') || 'the digest of their plans';
  throw new BallastError('HELLO_MISMATCH', `${theirs.role} and ${ours.role} differ in ${what}`);
}

function differingKeys(theirs: Agreement, ours: Agreement): string[] {
  const [there, here] = [new Set(theirs), new Set(ours)];
  const differing = [
    ...theirs.filter((line) => !here.has(line)),
    ...ours.filter((line) => !there.has(line)),
  ];
  return [...new Set(differing.map(keyOf))].sort();
}

function keyOf(line: string): string {
  return clip(line.split('=', 1)[0] ?? '');
}

function settingOf(agreement: Agreement, key: string): string {
  const line = agreement.find((candidate) => keyOf(candidate) === key);
  return line === undefined ? 'none' : clip(line.slice(key.length + 1));
}

/** The peer chose these words: one short line of them. */
function clip(text: string): string {
  const line = text.replaceAll(/\p{C}+/gu, ' ');
  return line.length <= VALUE_CHARACTERS ? line : `${line.slice(0, VALUE_CHARACTERS - 1)}…`;
}
