import Table from 'cli-table3';

/** What the tables have in common. */

export function newTable(head: string[], paint: Paint): InstanceType<typeof Table> {
  return new Table({
    head: head.map((title) => paint.dim(title)),
    colAligns: head.map((_, i) => (i === 0 ? 'left' : 'right')),
    style: { head: [], border: [], compact: true },
  });
}

export function number(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

export function ratio(value: number | null): string {
  return value === null ? '–' : value.toFixed(3);
}

export interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  yellow(text: string): string;
}

export function painter(color: boolean): Paint {
  const wrap = (code: number) => (text: string) =>
    color ? `\u001b[${code}m${text}\u001b[0m` : text;
  return { bold: wrap(1), dim: wrap(2), red: wrap(31), yellow: wrap(33) };
}
