import type { z } from 'zod';

type Optional<S extends Readonly<Record<string, z.ZodType>>> = {
  [K in keyof S]: z.ZodOptional<S[K]>;
};

/** A schema for each key, none of them required. */
export function optionalEach<S extends Readonly<Record<string, z.ZodType>>>(
  schemas: S,
): Optional<S> {
  const entries = Object.entries(schemas).map(([key, schema]) => [key, schema.optional()]);
  return Object.fromEntries(entries) as Optional<S>;
}
