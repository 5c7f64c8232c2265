/** One measured figure, its reference from the same run, and the target it is held against. */

type Unit = 'M/s' | 'k/s' | 'µs' | 'ns' | 'ms' | 'MiB' | 'bytes' | '×';

export interface Reference {
  readonly name: string;
  readonly samples: readonly number[];
}

/** What must hold of the median, or of its ratio to the reference's median. */
export interface Target {
  readonly of: 'value' | 'ratio';
  readonly atLeast?: number;
  readonly atMost?: number;
}

export interface Figure {
  readonly bench: string;
  readonly name: string;
  readonly unit: Unit;
  readonly samples: readonly number[];
  readonly reference?: Reference;
  readonly target?: Target;
}

/** A figure as it is printed and written as JSON. */
export interface Summary {
  readonly bench: string;
  readonly name: string;
  readonly unit: Unit;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly runs: number;
  readonly reference: { readonly name: string; readonly median: number } | null;
  readonly ratio: number | null;
  readonly target: Target | null;
  /** Null: there is no target, or its reference is missing here. */
  readonly met: boolean | null;
}

export interface BenchContext {
  /** Measured runs of each figure; a warm-up run comes before them. */
  readonly runs: number;
  /** Path of the compiled C references, or null without a C compiler. */
  readonly cReference: string | null;
  /** Says what is being measured, on one line. */
  progress(what: string): void;
}

export type Bench = (context: BenchContext) => Promise<Figure[]>;

function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  if (sorted.length % 2 === 1) return sorted[middle] as number;
  return ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

export function summarize(figure: Figure): Summary {
  const value = median(figure.samples);
  const reference = figure.reference
    ? { name: figure.reference.name, median: median(figure.reference.samples) }
    : null;
  const ratio = reference ? value / reference.median : null;
  return {
    bench: figure.bench,
    name: figure.name,
    unit: figure.unit,
    median: value,
    min: Math.min(...figure.samples),
    max: Math.max(...figure.samples),
    runs: figure.samples.length,
    reference,
    ratio,
    target: figure.target ?? null,
    met: isMet(figure.target, value, ratio),
  };
}

function isMet(target: Target | undefined, value: number, ratio: number | null): boolean | null {
  if (!target) return null;
  const held = target.of === 'value' ? value : ratio;
  if (held === null) return null;
  return held >= (target.atLeast ?? 0) && held <= (target.atMost ?? Number.POSITIVE_INFINITY);
}

/**
 * Runs every measurement once to warm up, then `runs` times in turn, so that what else the machine
 * does falls on all of them alike. Returns the samples of each.
 */
export async function sample<K extends string>(
  runs: number,
  measurements: Readonly<Record<K, () => number | Promise<number>>>,
): Promise<Record<K, number[]>> {
  const names = Object.keys(measurements) as K[];
  const samples = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<
    K,
    number[]
  >;
  for (let run = -1; run < runs; run++) {
    for (const name of names) {
      const value = await measurements[name]();
      if (run >= 0) samples[name].push(value);
    }
  }
  return samples;
}
