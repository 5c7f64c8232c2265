/** The clauses of the specification as `clauses.yaml` holds them. */
import { parse } from 'yaml';
import { z } from 'zod';

const LEVELS = ['MUST', 'MUST NOT', 'SHOULD', 'SHOULD NOT', 'MAY'] as const;

const clauseSchema = z.strictObject({
  id: z.string().regex(/^[\d.]+-(device|driver|legacy)-\d+$/),
  level: z.enum(LEVELS),
  text: z.string().min(1),
  /** Why the clause binds nothing here. */
  not_applicable: z.string().min(1).optional(),
  /** Why a SHOULD has no test. */
  reason: z.string().min(1).optional(),
});

const sectionSchema = z.strictObject({
  section: z.string(),
  title: z.string(),
  party: z.enum(['device', 'driver', 'device and driver']),
  not_applicable: z.string().min(1).optional(),
  clauses: z.array(clauseSchema).min(1),
});

const fileSchema = z.strictObject({
  specification: z.string(),
  revisions: z.record(z.string(), z.string().regex(/^[0-9a-f]{40}$/)),
  sections: z.array(sectionSchema).min(1),
});

export type Clause = z.infer<typeof clauseSchema>;
export type Section = z.infer<typeof sectionSchema>;
export type ClauseFile = z.infer<typeof fileSchema>;

/** Throws with one line that names the place. */
export function readClauses(text: string): ClauseFile {
  const result = fileSchema.safeParse(parse(text));
  if (!result.success) {
    const issue = result.error.issues[0]!;
    throw new Error(`clauses.yaml: ${issue.path.join('.')}: ${issue.message}`);
  }
  const seen = new Set<string>();
  for (const { clauses } of result.data.sections) {
    for (const { id, level, reason } of clauses) {
      if (seen.has(id)) throw new Error(`clauses.yaml: ${id} occurs twice`);
      if (reason && !level.startsWith('SHOULD')) {
        throw new Error(`clauses.yaml: ${id}: only a SHOULD can do without a test for a reason`);
      }
      seen.add(id);
    }
  }
  return result.data;
}

export function isMust(clause: Clause): boolean {
  return clause.level.startsWith('MUST');
}

export function notApplicable(section: Section, clause: Clause): string | undefined {
  return clause.not_applicable ?? section.not_applicable;
}
