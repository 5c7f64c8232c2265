import { writeFileSync } from 'node:fs';
import { packageRoot } from '../process/paths.ts';
import { resultJsonSchema } from './result.ts';

/** `tsx lab/runner/publish-schema.ts` writes docs/result.schema.json; a test compares the two. */
writeFileSync(`${packageRoot}/docs/result.schema.json`, resultJsonSchema());
