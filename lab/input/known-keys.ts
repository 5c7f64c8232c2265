import type { z } from 'zod';

/** Which keys a schema knows at a path: what a message lists when it refuses another one. */

interface Definition {
  readonly type: string;
  readonly innerType?: z.ZodType;
  readonly element?: z.ZodType;
  readonly out?: z.ZodType;
  readonly shape?: Readonly<Record<string, z.ZodType>>;
}

/** Empty when there is no map at `path`. */
export function knownKeys(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: z.ZodType | undefined = schema;
  for (const key of path) {
    const definition: Definition | undefined = at && definitionOf(at);
    at = typeof key === 'number' ? definition?.element : definition?.shape?.[String(key)];
  }
  return Object.keys((at && definitionOf(at).shape) ?? {});
}

/** Behind defaults, options and preprocessing. */
function definitionOf(schema: z.ZodType): Definition {
  const definition = schema.def as Definition;
  const inner = definition.innerType ?? definition.out;
  return inner ? definitionOf(inner) : definition;
}
